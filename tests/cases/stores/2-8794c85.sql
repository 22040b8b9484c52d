BEGIN TRANSACTION;
CREATE VIRTUAL TABLE words USING fts5 (
        message, paths, functions, identifiers, content='', tokenize="unicode61 remove_diacritics 2 tokenchars '_'"
    );
CREATE TABLE changes (
        commit_id INTEGER NOT NULL REFERENCES commits (id),
        number INTEGER NOT NULL,
        status TEXT NOT NULL,
        path_id INTEGER NOT NULL REFERENCES paths (id),
        old_path_id INTEGER REFERENCES paths (id),
        insertions INTEGER NOT NULL, deletions INTEGER NOT NULL,
        binary INTEGER NOT NULL, submodule INTEGER NOT NULL,
        PRIMARY KEY (commit_id, number)
    ) WITHOUT ROWID;
INSERT INTO "changes" VALUES(1,0,'A',1,NULL,2,0,0,0);
INSERT INTO "changes" VALUES(2,0,'A',2,NULL,1,0,0,0);
INSERT INTO "changes" VALUES(3,0,'A',3,NULL,2,0,0,0);
INSERT INTO "changes" VALUES(4,0,'A',4,NULL,1,0,0,0);
INSERT INTO "changes" VALUES(5,0,'A',3,NULL,2,0,0,0);
INSERT INTO "changes" VALUES(6,0,'D',2,NULL,0,1,0,0);
CREATE TABLE commits (
        id INTEGER PRIMARY KEY,
        hash TEXT NOT NULL UNIQUE,
        parents TEXT NOT NULL,
        author_name TEXT NOT NULL, author_email TEXT NOT NULL,
        author_time INTEGER NOT NULL, author_offset INTEGER NOT NULL,
        committer_name TEXT NOT NULL, committer_email TEXT NOT NULL,
        committer_time INTEGER NOT NULL, committer_offset INTEGER NOT NULL,
        subject TEXT NOT NULL, body TEXT NOT NULL,
        diff_complete INTEGER NOT NULL, unreadable TEXT NOT NULL, flags TEXT NOT NULL,
        -- where the refs put it now; no fact of the commit
        position INTEGER, branch TEXT, branches TEXT
    , merged_by TEXT, refers TEXT NOT NULL DEFAULT '{}', redacted TEXT NOT NULL DEFAULT '{}', reading TEXT NOT NULL DEFAULT '', patch_id TEXT, reverse_id TEXT);
INSERT INTO "commits" VALUES(1,'e1261c7e80b888970ed03b655894e7f0fb08c53b','','Ada Lovelace','ada@example.com',1700000180,60,'Ada Lovelace','ada@example.com',1700000180,60,'Start the market','',1,'[]','',1,'main','["main", "bridge"]',NULL,'{}','{}','303fcb4f2a8c93c2','b848f8daa481b8e009859116530e0417fe61d50a','346de6bfa7fbe37a7afe0d9e1665012d1dc29d03');
INSERT INTO "commits" VALUES(2,'665b7dea9ab1e5fc17f2fa81fe858e6bb532154c','e1261c7e80b888970ed03b655894e7f0fb08c53b','Ada Lovelace','ada@example.com',1700000360,60,'Ada Lovelace','ada@example.com',1700000360,60,'Raise the retry limit to five','',1,'[]','',2,'main','["main", "bridge"]',NULL,'{}','{}','303fcb4f2a8c93c2','a082192213984552bbf6ce6c170705219e8e1719','bf4a04ca1e80f241c4c30951abafb611c047555a');
INSERT INTO "commits" VALUES(3,'1ddc3d9a93158782633e8416d31f8eb53a8b9712','665b7dea9ab1e5fc17f2fa81fe858e6bb532154c','Ada Lovelace','ada@example.com',1700000600,60,'Ada Lovelace','ada@example.com',1700000600,60,'cli local changes','',1,'[]','',3,'main','["main", "bridge"]','b0c2c215e146f2bf35b80f8e557e82cda4601991','{}','{}','303fcb4f2a8c93c2','eee600da7eac980a2ce9d22ccc3b978fc8d6a344','6e4e4c230056f36eee19d917e264bd9ed09a600d');
INSERT INTO "commits" VALUES(4,'6605d1a5a1496e319a68160d0f971133d6b49c1d','665b7dea9ab1e5fc17f2fa81fe858e6bb532154c','Ada Lovelace','ada@example.com',1700000840,60,'Ada Lovelace','ada@example.com',1700000840,60,'Write down disputes (see #12)','',1,'[]','',4,'main','["main"]',NULL,'{"issues": ["#12"]}','{}','303fcb4f2a8c93c2','b87487c7a15c133f6db170536c77fecaeb8aba18','e0d1acd48fbddb68374f449bd7617ee0da323c8f');
INSERT INTO "commits" VALUES(5,'b0c2c215e146f2bf35b80f8e557e82cda4601991','6605d1a5a1496e319a68160d0f971133d6b49c1d 1ddc3d9a93158782633e8416d31f8eb53a8b9712','Ada Lovelace','ada@example.com',1700000960,60,'Ada Lovelace','ada@example.com',1700000960,60,'Merge bridge','It brings the gateway.',1,'[]','',5,'main','["main"]',NULL,'{}','{}','303fcb4f2a8c93c2','eee600da7eac980a2ce9d22ccc3b978fc8d6a344','6e4e4c230056f36eee19d917e264bd9ed09a600d');
INSERT INTO "commits" VALUES(6,'b6ff0f213b343cec591eda747cb17b28da84f70f','b0c2c215e146f2bf35b80f8e557e82cda4601991','Ada Lovelace','ada@example.com',1700001080,60,'Ada Lovelace','ada@example.com',1700001080,60,'Drop the retries','',1,'[]','',6,'main','["main"]',NULL,'{}','{}','303fcb4f2a8c93c2','bf4a04ca1e80f241c4c30951abafb611c047555a','a082192213984552bbf6ce6c170705219e8e1719');
CREATE TABLE documents (
        commit_id INTEGER PRIMARY KEY REFERENCES commits (id),
        features BLOB NOT NULL,
        diff_text TEXT -- NULL until the words are indexed, which needs every commit's features first
    , left_out TEXT NOT NULL DEFAULT '{}');
INSERT INTO "documents" VALUES(1,X'7B226D657373616765223A22537461727420746865206D61726B6574222C227061746873223A5B226D61726B65742E7079225D2C2266756E6374696F6E73223A5B5D2C226964656E74696669657273223A7B226F72646572223A322C22646566223A312C22736574746C65223A312C2272657475726E223A317D7D','market.py
order def return settle','{}');
INSERT INTO "documents" VALUES(2,X'7B226D657373616765223A22526169736520746865207265747279206C696D697420746F2066697665222C227061746873223A5B2272657472792E7079225D2C2266756E6374696F6E73223A5B5D2C226964656E74696669657273223A7B2252455452595F4C494D4954223A317D7D','retry.py
RETRY_LIMIT','{}');
INSERT INTO "documents" VALUES(3,X'7B226D657373616765223A22636C69206C6F63616C206368616E676573222C227061746873223A5B226272696467652E7079225D2C2266756E6374696F6E73223A5B5D2C226964656E74696669657273223A7B22636C617373223A312C2247617465776179427269646765223A312C2270617373223A317D7D','bridge.py
GatewayBridge class pass','{}');
INSERT INTO "documents" VALUES(4,X'7B226D657373616765223A22577269746520646F776E20646973707574657320287365652023313229222C227061746873223A5B22646F63732F64697370757465732E6D64225D2C2266756E6374696F6E73223A5B5D2C226964656E74696669657273223A7B22486F77223A312C2264697370757465223A312C22736574746C6564223A317D7D','docs/disputes.md
How dispute settled','{}');
INSERT INTO "documents" VALUES(5,X'7B226D657373616765223A224D65726765206272696467655C6E5C6E4974206272696E67732074686520676174657761792E222C227061746873223A5B226272696467652E7079225D2C2266756E6374696F6E73223A5B5D2C226964656E74696669657273223A7B22636C617373223A312C2247617465776179427269646765223A312C2270617373223A317D7D','bridge.py
GatewayBridge class pass','{}');
INSERT INTO "documents" VALUES(6,X'7B226D657373616765223A2244726F70207468652072657472696573222C227061746873223A5B2272657472792E7079225D2C2266756E6374696F6E73223A5B5D2C226964656E74696669657273223A7B7D7D','retry.py','{}');
CREATE TABLE facts (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
INSERT INTO "facts" VALUES('index','5b7d8e6b49423652');
INSERT INTO "facts" VALUES('kinds','5e07b584fcd5662c');
INSERT INTO "facts" VALUES('objects','ef97ce95380e0674');
INSERT INTO "facts" VALUES('repo','market');
INSERT INTO "facts" VALUES('selection','3d7c4af28f212c37');
CREATE TABLE merge_messages (hash TEXT PRIMARY KEY, message TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE paths (id INTEGER PRIMARY KEY, path TEXT NOT NULL UNIQUE, kind TEXT NOT NULL DEFAULT '');
INSERT INTO "paths" VALUES(1,'market.py','source');
INSERT INTO "paths" VALUES(2,'retry.py','source');
INSERT INTO "paths" VALUES(3,'bridge.py','source');
INSERT INTO "paths" VALUES(4,'docs/disputes.md','docs');
CREATE TABLE refs (
        name TEXT NOT NULL, tip TEXT NOT NULL, rank INTEGER NOT NULL, PRIMARY KEY (name, tip, rank)
    ) WITHOUT ROWID;
INSERT INTO "refs" VALUES('bridge','1ddc3d9a93158782633e8416d31f8eb53a8b9712',2);
INSERT INTO "refs" VALUES('main','b6ff0f213b343cec591eda747cb17b28da84f70f',0);
CREATE TABLE runs (
        id INTEGER PRIMARY KEY, stage TEXT NOT NULL, started REAL NOT NULL, seconds REAL NOT NULL, summary TEXT NOT NULL
    );
INSERT INTO "runs" VALUES(1,'scrape',1.79571912816047191616e+09,2.61861324310302734375e-01,'{"commits": 6, "new": 6, "vanished": 0, "partial": 0, "seconds": 0.262}');
INSERT INTO "runs" VALUES(2,'index',1.79571912846093225475e+09,7.28065967559814453125e-02,'{"commits": 6, "vectors": 0, "seconds": 0.073}');
CREATE TABLE vectors (
        fingerprint TEXT NOT NULL, row INTEGER NOT NULL,
        commit_id INTEGER NOT NULL REFERENCES commits (id), kind TEXT NOT NULL,
        PRIMARY KEY (fingerprint, row), UNIQUE (fingerprint, commit_id, kind)
    ) WITHOUT ROWID;
CREATE INDEX commits_position ON commits (position);
CREATE INDEX changes_path ON changes (path_id);
CREATE INDEX commits_patch ON commits (patch_id) WHERE patch_id != '';
CREATE INDEX commits_reverse ON commits (reverse_id) WHERE reverse_id != '';
COMMIT;
PRAGMA user_version=2;
