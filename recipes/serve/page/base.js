/* base.js - what every stall uses: words, elements, requests, streams. Text of models and files
 * reaches the page as textContent only. */
import { words, languages } from './words.js';

export const $ = (id) => document.getElementById(id);

export const kept = (name) => { try { return localStorage.getItem('mbuyu.' + name); } catch { return null; } };
export const keep = (name, value) => { try { localStorage.setItem('mbuyu.' + name, value); } catch { /* private window */ } };

let language = 0;
export function setLanguage(code) {
  language = Math.max(0, languages.indexOf(code));
  document.documentElement.lang = languages[language];
  for (const e of document.querySelectorAll('[data-t]')) e.textContent = t(e.dataset.t);
  for (const e of document.querySelectorAll('[data-tp]')) e.placeholder = t(e.dataset.tp);
  for (const e of document.querySelectorAll('[data-tl]')) e.setAttribute('aria-label', t(e.dataset.tl));
  document.dispatchEvent(new Event('language'));
}
export const locale = () => languages[language];

/* The sentence of a name; {0} {1} are filled in. A name without one stands for itself. */
export function t(name, ...values) {
  const line = words[name];
  const text = line ? line[language] : String(name);
  return text.replace(/\{(\d)\}/g, (_, i) => values[i]);
}

/* An element: make('button', {className: 'primary'}, 'text', child, ...). */
export function make(tag, properties, ...children) {
  const e = document.createElement(tag);
  Object.assign(e, properties);
  e.append(...children.filter((c) => c !== null && c !== undefined));
  return e;
}

export function fill(e, ...children) {
  e.replaceChildren(...children.filter((c) => c !== null && c !== undefined));
}

export const number = (v, digits = 4) =>
  v === null || v === undefined || Number.isNaN(v) ? '–'
    : new Intl.NumberFormat(locale(), { maximumSignificantDigits: digits }).format(v);
export const small = (v) => (v ? (v < 0.001 ? v.toExponential(2) : number(v, 3)) : '0');
export const bytes = (n) => (n >= 2 ** 30 ? number(n / 2 ** 30, 3) + ' GiB' : number(n / 2 ** 20, 3) + ' MiB');
export function duration(s) {
  if (!(s >= 0) || !Number.isFinite(s)) return '–';
  if (s < 90) return Math.round(s) + ' s';
  if (s < 5400) return Math.round(s / 60) + ' min';
  return number(s / 3600, 3) + ' h';
}

export function notice(text) {
  $('notice').textContent = text;
  $('notice').hidden = !text;
}

/* ---- requests. A failure is an Error with the server's sentence. */
let key = null;
try { key = sessionStorage.getItem('mbuyu.key'); } catch { /* none */ }
export function setKey(value) {
  key = value;
  try { sessionStorage.setItem('mbuyu.key', value); } catch { /* this page only */ }
}

export const hasKey = () => Boolean(key);

const headers = (more) => (key ? { Authorization: 'Bearer ' + key, ...more } : { ...more });

async function failure(answer) {
  let text = answer.status + ' ' + answer.statusText;
  try {
    const body = await answer.json();
    text = body.error?.message ?? body.error ?? text;
  } catch { /* not JSON */ }
  if (answer.status === 401) $('key-form').hidden = false;
  const e = new Error(text);
  e.status = answer.status;
  return e;
}

export async function ask(path, { method, json, form, signal } = {}) {
  const o = { method: method ?? (json || form ? 'POST' : 'GET'), signal, headers: headers(json && { 'Content-Type': 'application/json' }) };
  if (json) o.body = JSON.stringify(json);
  if (form) o.body = form;
  let answer;
  try {
    answer = await fetch(path, o);
  } catch (e) {
    if (e.name === 'AbortError') throw e;
    throw new Error(t('lost'));
  }
  if (!answer.ok) throw await failure(answer);
  return answer;
}
export const askJson = async (path, o) => (await ask(path, o)).json();

/* A form by XMLHttpRequest, which tells how far an upload is. */
export function upload(path, form, progress) {
  return new Promise((done, failed) => {
    const q = new XMLHttpRequest();
    q.open('POST', path);
    for (const [name, value] of Object.entries(headers())) q.setRequestHeader(name, value);
    q.upload.onprogress = (e) => e.lengthComputable && progress(e.loaded / e.total);
    q.onerror = () => failed(new Error(t('lost')));
    q.onload = () => {
      let body = {};
      try { body = JSON.parse(q.responseText); } catch { /* below */ }
      if (q.status < 300) done(body);
      else failed(new Error(body.error?.message ?? q.status + ' ' + q.statusText));
    };
    q.send(form);
  });
}

/* Server-sent events of an answer, as parsed JSON, until [DONE]. */
export async function* events(answer) {
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = '';
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    rest += value;
    for (;;) {
      const end = rest.search(/\r?\n\r?\n/);
      if (end < 0) break;
      const lines = rest.slice(0, end).split(/\r?\n/);
      rest = rest.slice(end).replace(/^\r?\n\r?\n/, '');
      const data = lines.filter((l) => l.startsWith('data:')).map((l) => l.slice(5).trimStart()).join('\n');
      if (data === '[DONE]') return;
      if (data) yield JSON.parse(data);
    }
  }
}

export async function copyText(text, button) {
  const word = button.dataset.t;
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    const area = make('textarea', { value: text });
    document.body.append(area);
    area.select();
    document.execCommand('copy');
    area.remove();
  }
  button.textContent = t('copied');
  setTimeout(() => { button.textContent = t(word); }, 1500);
}

export const saveText = (name, text, type) => saveBlob(name, new Blob([text], { type }));

export function saveBlob(name, blob) {
  const url = URL.createObjectURL(blob);
  const a = make('a', { href: url, download: name });
  document.body.append(a);
  a.click();
  a.remove();
  setTimeout(() => URL.revokeObjectURL(url), 10000);
}

export const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue('--' + name).trim();

/* Probabilities as bars, the largest first. */
export function bars(list) {
  const box = make('div', { className: 'bars' });
  for (const { label, probability } of [...list].sort((a, b) => b.probability - a.probability).slice(0, 10)) {
    const part = Math.max(0, Math.min(1, probability));
    const canvas = make('canvas', { width: 400, height: 8 });
    const pen = canvas.getContext('2d');
    pen.fillStyle = colour('leaf');
    pen.fillRect(0, 0, Math.max(2, part * 400), 8);
    box.append(make('div', { className: 'bar' }, make('span', {}, label),
      make('span', {}, (100 * probability).toFixed(1) + ' %'), make('div', { className: 'track' }, canvas)));
  }
  return box;
}
