// Where the page is: `#/view/what?key=value`. All of it is in the address, so that it can be kept, sent and gone back to.

const REPOSITORY = "in";

/** The view, what it shows, its parameters, and the repository (empty: the server's first). */
export function route(hash = location.hash) {
  const [path, query = ""] = hash.replace(/^#\/?/, "").split(/\?(.*)/s);
  const [view, ...rest] = path.split("/");
  const params = Object.fromEntries(new URLSearchParams(query));
  const { [REPOSITORY]: repository = "", ...others } = params;
  let what = rest.join("/");
  try {
    what = decodeURIComponent(what);
  } catch {
    // a half-written address: it is shown as it is
  }
  return { view: view || "search", what, params: others, repository };
}

/** The address of a view, in the repository that is open now. */
export function link(view, what = "", params = {}, repository = route().repository) {
  const query = new URLSearchParams();
  for (const [key, value] of Object.entries(params)) if (value !== "" && value !== false && value !== undefined) query.set(key, value);
  if (repository) query.set(REPOSITORY, repository);
  return `#/${view}${what ? `/${encodeURIComponent(what)}` : ""}${query.size ? `?${query}` : ""}`;
}

export const toCommit = (hash) => link("commit", hash);
export const toSearch = (query, more = {}) => link("search", "", { q: query, ...more });

/** Say in the address what is shown now, without leaving it. */
export const remember = (address) => history.replaceState(history.state, "", address);
