// Small hands on the document: they touch nothing that is already right, so that a second's update
// of many rows costs what changed. Text goes in as text; nothing here parses markup.

export const $ = (s, at = document) => at.querySelector(s);
export const $$ = (s, at = document) => [...at.querySelectorAll(s)];
export const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

export const text = (node, value) => { if (node && node.textContent !== value) node.textContent = value; };
export const attr = (node, name, value) => {
  if (value == null || value === '') { if (node.hasAttribute(name)) node.removeAttribute(name); } else if (node.getAttribute(name) !== String(value)) node.setAttribute(name, value);
};
/** Shape, word and colour of a verdict. */
export const badge = (node, [v, word], title) => {
  attr(node, 'data-v', v);
  attr($('use', node), 'href', `#i-${v}`);
  text($('b', node), word);
  attr(node, 'title', title);
};
export const newBadge = (verdict, title) => {
  const node = el('span', 'v');
  const shape = svg('svg', { 'aria-hidden': 'true' });
  shape.append(svg('use', { href: '#i-ok' }));
  node.append(shape, el('b'));
  badge(node, verdict, title);
  return node;
};
export const el = (tag, className, ...content) => {
  const node = document.createElement(tag);
  if (className) node.className = className;
  node.append(...content.filter((c) => c != null));
  return node;
};
export const button = (label, act, className) => {
  const node = el('button', className || 'act', label);
  node.type = 'button';
  node.addEventListener('click', act);
  return node;
};
export const svg = (tag, attributes, content) => {
  const node = document.createElementNS('http://www.w3.org/2000/svg', tag);
  for (const name in attributes) node.setAttribute(name, attributes[name]);
  if (content != null) node.textContent = content;
  return node;
};
/** Makes the children of `parent` be `items`, in order, reusing nodes by key; keeps the focus. */
export const keyed = (parent, items, key, make, fill) => {
  const old = new Map([...parent.children].map((n) => [n.dataset.key, n]));
  const held = parent.contains(document.activeElement) ? document.activeElement : null;
  let at = parent.firstElementChild;
  for (const item of items) {
    const k = key(item);
    let node = old.get(k);
    if (node) old.delete(k); else { node = make(item); node.dataset.key = k; }
    fill(node, item);
    if (node === at) at = at.nextElementSibling; else parent.insertBefore(node, at);
  }
  for (const node of old.values()) node.remove();
  if (held && held !== document.activeElement && held.isConnected) held.focus({ preventScroll: true });
};
export const stamp = (id) => $(id).content.firstElementChild.cloneNode(true);
/** A table from headings and rows of text; a heading that begins with # is of numbers. */
export const table = (caption, headings, rows) => {
  const node = el('table', 'plain'), head = el('tr'), numeric = headings.map((h) => h[0] === '#');
  for (const [i, h] of headings.entries()) {
    const th = el('th', numeric[i] ? 'num' : '', h.replace('#', ''));
    th.scope = 'col';
    head.append(th);
  }
  const body = el('tbody');
  for (const row of rows) {
    const tr = el('tr');
    for (const [i, cell] of row.entries()) {
      const td = el(i ? 'td' : 'th', numeric[i] ? 'num' : '', cell);
      if (!i) td.scope = 'row';
      tr.append(td);
    }
    body.append(tr);
  }
  node.append(el('caption', 'vh', caption), el('thead', '', head), body);
  return node;
};
/** Says a sentence to those who look and to those who listen. */
let quiet = 0;
export const say = (sentence) => {
  const box = $('#said');
  text(box, sentence);
  box.hidden = false;
  clearTimeout(quiet);
  quiet = setTimeout(() => { box.hidden = true; text(box, ''); }, 6000);
};
