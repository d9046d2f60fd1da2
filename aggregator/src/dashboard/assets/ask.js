// Questions to the aggregator: the only place that fetches. A refusal becomes a sentence.

const QUESTION_MS_MAX = 25000;

export class Refused extends Error {
  constructor(status, sentence) { super(sentence); this.status = status; }
}
const sentence = (status, body) => {
  const said = body.detail || body.message || body.error || body.title;
  if (status === 401) return `${said || 'not signed in'}. Sign in again at /auth/sign-in.`;
  return said || `the aggregator answered ${status}`;
};
const answer = async (path, options) => {
  const reply = await fetch(path, { cache: 'no-store', signal: AbortSignal.timeout(QUESTION_MS_MAX), ...options })
    .catch((e) => { throw new Refused(0, e.name === 'TimeoutError' ? `no answer within ${QUESTION_MS_MAX / 1000} s` : 'the aggregator cannot be reached'); });
  const body = await reply.json().catch(() => ({}));
  if (!reply.ok) throw new Refused(reply.status, sentence(reply.status, body));
  return body;
};

export const question = (path, parameters) => {
  const all = new URLSearchParams(Object.entries(parameters || {}).filter(([, v]) => v != null && v !== ''));
  return all.size ? `${path}?${all.toString().replace(/%2F/g, '/').replace(/%3A/g, ':').replace(/%2C/g, ',')}` : path;
};
export const ask = (path, parameters) => answer(question(path, parameters));
export const tell = (path, body) => answer(path, { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify(body) });

/** What this reader may do, as the aggregator rendered it into the page. */
const may = new Set((document.body.dataset.may || '').split(' '));
export const allowed = (verb) => may.has(verb);

/** The same question for a terminal. */
export const curl = (path, body) => {
  const quote = (t) => `'${t.replace(/'/g, "'\\''")}'`;
  const token = document.body.dataset.open === 'true' ? '' : ' -H "Authorization: Bearer $LENS_TOKEN"';
  const post = body === undefined ? '' : ` -X POST --json ${quote(JSON.stringify(body))}`;
  return `curl -sS${token}${post} ${quote(location.origin + path)}`;
};
