// A GGUF in a real llama.cpp, by node-llama-cpp: `node llama_cpp.mjs FOLDER MODEL.gguf`, where FOLDER holds node_modules.
// In (JSON on stdin): texts; documents (ids, at most a context of them each); prompt (ids) and decode (how many after it).
// Out: tokens of the texts; nats and the likeliest id of each document's tokens but the first; CPU seconds of decoding.
import {pathToFileURL} from "node:url";
import path from "node:path";
import {json} from "node:stream/consumers";

const [folder, modelPath] = process.argv.slice(2);
const library = path.resolve(folder, "node_modules", "node-llama-cpp", "dist", "index.js");
const {getLlama} = await import(pathToFileURL(library));
const {texts = [], documents = [], prompt = [], decode = 0, threads = 1} = await json(process.stdin);

const llama = await getLlama({gpu: false, build: "never", logLevel: "error", maxThreads: threads});
const model = await llama.loadModel({modelPath});
const tokens = texts.map((text) => model.tokenize(text, false));

const longest = Math.max(1, prompt.length + decode, ...documents.map((document) => document.length));
const context = await model.createContext({contextSize: longest, sequences: 1, threads});
const sequence = context.getSequence();
const nats = [], likeliest = [];
for (const document of documents) {
    await sequence.clearHistory();
    const asked = document.slice(0, -1).map((token, place) => [token, {generateNext: {
        logits: {filter: {tokens: [document[place + 1]], includeTop: 1}},
        totalLogitWeight: true
    }}]);
    const told = (await sequence.controlledEvaluate(asked)).map((one) => one.next);
    const best = told.map((one) => [...one.logits.entries()].reduce((a, b) => b[1] > a[1] ? b : a));
    likeliest.push(best.map(([token]) => token));
    nats.push(told.map((one, place) =>
        best[place][1] + Math.log(one.totalLogitWeight) - one.logits.get(document[place + 1])));
}

let decoded = 0, seconds = 0;
if (decode) {
    await sequence.clearHistory();
    let started;
    for await (const _ of sequence.evaluate(prompt, {temperature: 0})) {
        started ??= process.cpuUsage(); // with the first token the prompt is read
        if (decoded++ === decode) break;
    }
    const {user, system} = process.cpuUsage(started);
    seconds = (user + system) / 1e6;
}
process.stdout.write(JSON.stringify({tokens, nats, likeliest, decoded: Math.max(0, decoded - 1), seconds}));
await llama.dispose();
