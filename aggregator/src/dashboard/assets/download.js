// What can be taken away: rows as CSV, plots as SVG or PNG, and questions for a terminal.
//
// A plot's looks come from the sheet, so they are written into a copy of it as attributes; the copy
// needs nothing from this page. A PNG is that copy drawn twice as large, on the page's background.

import { $, $$, css, say, svg } from './dom.js';

const LOOKS = ['fill', 'fill-opacity', 'stroke', 'stroke-width', 'stroke-dasharray', 'stroke-linejoin', 'stroke-linecap', 'opacity', 'font-family', 'font-size', 'font-weight', 'text-anchor', 'paint-order', 'image-rendering'];
const PNG_SCALE = 2;

const save = (name, blob) => {
  const link = document.createElement('a'), url = URL.createObjectURL(blob);
  link.href = url;
  link.download = name;
  link.click();
  // The browser has taken it by then; a URL never revoked keeps its bytes.
  setTimeout(() => URL.revokeObjectURL(url), 60000);
  say(`${name} was saved.`);
};
/** A name for a file, of what is shown and when. */
export const fileName = (kind, subject, extension) => `lens-${kind}-${`${subject}`.toLowerCase().replace(/[^a-z0-9]+/g, '-').replace(/^-|-$/g, '')}-${new Date().toISOString().slice(0, 19).replace(/[:T]/g, '')}.${extension}`;

const cell = (value) => {
  const text = value == null ? '' : String(value);
  // A sheet must not take a name for a formula.
  const safe = /^[=+@\t\r]/.test(text) ? `'${text}` : text;
  return /[",\n]/.test(safe) ? `"${safe.replace(/"/g, '""')}"` : safe;
};
export const csv = (name, rows) => {
  if (rows.length < 2) return say('There is nothing to save yet: no samples are shown.');
  save(name, new Blob([rows.map((row) => row.map(cell).join(',')).join('\r\n') + '\r\n'], { type: 'text/csv;charset=utf-8' }));
};

const standalone = (node) => {
  const copy = node.cloneNode(true), [, , w, h] = node.getAttribute('viewBox').split(' ').map(Number);
  for (const transient of $$('.cursor, .selection', copy)) transient.remove();
  const theirs = $$('*', node).filter((n) => !n.matches('.cursor, .selection, .selection *'));
  $$('*', copy).forEach((mine, i) => {
    const looks = getComputedStyle(theirs[i]);
    for (const look of LOOKS) { const value = looks.getPropertyValue(look); if (value && value !== 'none' || look === 'fill') mine.setAttribute(look, value); }
    mine.removeAttribute('class');
  });
  for (const name of [...copy.getAttributeNames()]) if (name !== 'viewBox') copy.removeAttribute(name);
  copy.setAttribute('xmlns', 'http://www.w3.org/2000/svg');
  copy.setAttribute('width', w);
  copy.setAttribute('height', h);
  copy.prepend(svg('rect', { width: w, height: h, fill: css('--surface') }));
  return { text: new XMLSerializer().serializeToString(copy), w, h };
};
const drawn = (node) => node.hasAttribute('viewBox') && node.childElementCount > 0;
export const plotSvg = (name, node) => {
  if (!drawn(node)) return say('There is nothing to save yet: the plot is empty.');
  save(name, new Blob([standalone(node).text], { type: 'image/svg+xml' }));
};
export const plotPng = async (name, node) => {
  if (!drawn(node)) return say('There is nothing to save yet: the plot is empty.');
  const { text, w, h } = standalone(node), image = new Image(), canvas = document.createElement('canvas');
  image.src = `data:image/svg+xml;charset=utf-8,${encodeURIComponent(text)}`;
  await image.decode();
  canvas.width = w * PNG_SCALE;
  canvas.height = h * PNG_SCALE;
  canvas.getContext('2d').drawImage(image, 0, 0, canvas.width, canvas.height);
  canvas.toBlob((blob) => save(name, blob), 'image/png');
};

/** Copies a command; where the browser does not let it, shows it selected. */
export const copy = async (words) => {
  try {
    await navigator.clipboard.writeText(words);
    say('The command was copied.');
  } catch {
    const box = $('#d-copy textarea');
    box.value = words;
    $('#d-copy').showModal();
    box.select();
  }
};
