/* runs.js - the stall of runs: a list, and of one of them curves, numbers, samples, labels. All of it
 * is read from the files of the run's folder. */
import { $, ask, askJson, bytes, duration, fill, hasKey, make, notice, number, saveBlob, small, t } from './base.js';
import { chart } from './chart.js';

let list = [];
let open = null;    /* the run that is shown */
let records = [];   /* of its log */
let next = 0;       /* bytes of the log that were read */
let timer = null;
let charts = [];

const active = (run) => run && ['running', 'queued', 'validating_files'].includes(run.state);

/* ---- the list ---- */

function item(run) {
  const chip = make('span', { className: 'chip ' + run.state }, t(run.state));
  const about = [run.total ? t('steps', run.step, run.total) : '', new Date(run.modified * 1000).toLocaleString(document.documentElement.lang, { dateStyle: 'medium', timeStyle: 'short' })];
  const button = make('button', { type: 'button' }, make('b', {}, run.name), chip, make('small', {}, about.filter(Boolean).join(' · ')));
  if (run.id === open?.id) button.setAttribute('aria-current', 'true');
  button.addEventListener('click', () => { location.hash = '#runs/' + encodeURIComponent(run.id); });
  return make('li', {}, button);
}

function drawList() {
  const focus = [...$('run-list').querySelectorAll('button')].indexOf(document.activeElement);
  fill($('run-list'), ...list.map(item));
  if (!list.length) fill($('run-list'), make('li', { className: 'note' }, t('no_runs')));
  if (focus >= 0) $('run-list').querySelectorAll('button')[focus]?.focus();
}

export async function loadRuns() {
  list = (await askJson('/mbuyu/runs')).data;
  if (open) open = list.find((r) => r.id === open.id) ?? open;
  drawList();
}

/* ---- one run ---- */

const series = (key) => records.filter((r) => r[key] !== undefined && r[key] !== null).map((r) => ({ x: r.step, y: r[key] }));

function makeCharts() {
  charts = [['loss', 'loss'], ['learning_rate', 'learning_rate'], ['grad_norm', 'grad_norm'], ['tokens_per_second', 'throughput'], ['num_memory_bytes', 'memory']]
    .map(([key, word]) => ({ key, ...chart(t(word), key) }));
  fill($('charts'), ...charts.map((c) => c.figure));
}

function drawCharts() {
  const weight = Number($('smooth').value), log = $('log-scale').checked;
  for (const c of charts) {
    const scale = c.key === 'num_memory_bytes' ? 2 ** -20 : 1;
    const raw = series(c.key).map(({ x, y }) => ({ x, y: y * scale }));
    c.show(raw, c.key === 'loss' ? { dots: series('eval_loss'), weight, log } : { weight: c.key === 'tokens_per_second' ? weight : 0 });
  }
}

function lastOf(key) {
  for (let i = records.length - 1; i >= 0; i--) if (records[i][key] !== undefined && records[i][key] !== null) return records[i][key];
  return null;
}

function drawFacts() {
  const step = lastOf('step') ?? 0;
  const times = records.slice(-20).map((r) => r.step_time).filter(Boolean);
  const pace = times.length ? times.reduce((a, b) => a + b, 0) / times.length : NaN;
  const evaluation = records.findLast?.((r) => r.eval_loss !== undefined) ?? {};
  const metrics = Object.entries(evaluation).filter(([k]) => /^eval_(?!loss|runtime|perplexity)/.test(k)).slice(0, 3);
  const facts = [
    ['step', open.total ? step + ' / ' + open.total : step],
    ['epoch', number(lastOf('epoch'), 3)],
    ['loss', small(lastOf('loss'))],
    ['eval_loss', small(lastOf('eval_loss')) === '0' ? '–' : small(lastOf('eval_loss'))],
    ...metrics.map(([k, v]) => [k.slice(5), number(v, 3)]),
    ['throughput', number(lastOf('tokens_per_second'), 3)],
    ['memory', lastOf('num_memory_bytes') ?? lastOf('num_peak_bytes') ? bytes(lastOf('num_memory_bytes') ?? lastOf('num_peak_bytes')) : '–'],
  ];
  if (open.state === 'running') facts.push(['left', duration((open.total - step) * pace)]);
  fill($('facts'), ...facts.map(([k, v]) => make('li', {}, make('span', {}, t(k)), make('b', {}, String(v)))));
  $('run-progress').value = open.total ? step / open.total : 0;
}

function drawTable() {
  if (!$('numbers').open) return;
  const keys = ['step', 'loss', 'eval_loss', 'learning_rate', 'grad_norm', 'tokens_per_second'];
  const words = ['step', 'loss', 'eval_loss', 'learning_rate', 'grad_norm', 'throughput'];
  const rows = records.filter((r) => r.loss !== undefined || r.eval_loss !== undefined).slice(-200);
  fill($('number-table'), make('thead', {}, make('tr', {}, ...words.map((w) => {
    const th = make('th', {}, t(w));
    th.scope = 'col';
    return th;
  }))), make('tbody', {}, ...rows.map((r) => make('tr', {}, ...keys.map((k) => make('td', {}, r[k] === undefined ? '' : k === 'step' ? String(r[k]) : small(r[k])))))));
}

function drawHead() {
  $('run-name').textContent = open.name;
  $('run-folder').textContent = open.folder;
  $('run-state').textContent = t(open.state);
  $('run-state').className = 'chip ' + open.state;
  $('run-stop').hidden = !(open.job && active(open));
  $('run-resume').hidden = !(open.job && ['cancelled', 'failed'].includes(open.state) && open.checkpoint);
  $('run-try').hidden = !open.model;
  if (open.error) $('run-note').textContent = open.error;
}

async function readLog() {
  for (;;) {
    const answer = await ask('/mbuyu/run/log?id=' + encodeURIComponent(open.id) + '&from=' + next);
    const text = await answer.text();
    const at = Number(answer.headers.get('X-Next'));
    if (at < next || Number(answer.headers.get('X-From')) !== next) records = [];
    for (const line of text.split('\n')) if (line) records.push(JSON.parse(line));
    if (at === next || !text) {
      next = at;
      return;
    }
    next = at;
  }
}

function drawSamples(text) {
  const rows = text.split('\n').filter(Boolean).map((l) => JSON.parse(l));
  $('samples-card').hidden = rows.length === 0;
  fill($('samples'), ...rows.slice(-12).reverse().map((s) => make('div', { className: 'sample' },
    make('p', { className: 'note' }, (s.step === undefined ? '' : t('step') + ' ' + s.step + ' · ') + (s.prompt ?? s.source ?? s.audio ?? s.image ?? s.text_a ?? '')),
    String(s.text ?? s.prediction ?? ''),
    (s.reference ?? s.label) === undefined ? null : make('p', { className: 'note' }, t('expected') + (s.reference ?? s.label)))));
}

export function drawRows(box, seen) {
  fill(box, make('p', { className: 'note' }, t('marked')), ...seen.rows.map((row) => make('article', {},
    make('div', { className: 'note' }, row.place),
    row.spans ? make('div', { className: 'tokens' }, ...row.spans.map((s) => (s.trained ? make('mark', {}, s.text) : s.text))) : null,
    row.label === undefined ? null : make('div', {}, '→ ', make('mark', {}, row.label)))),
  make('div', { className: 'scroll' }, make('table', {}, make('tbody', {}, ...seen.counts.map((c) => make('tr', {}, make('th', {}, c.what), make('td', {}, number(c.n, 6))))))));
}

async function readRest() {
  const id = encodeURIComponent(open.id);
  const file = async (name) => (open.files?.includes(name) ? (await ask('/mbuyu/run/file?id=' + id + '&name=' + name)).text() : '');
  await readMade();
  drawSamples((await file('samples')));
  $('run-recipe').textContent = await file('recipe');
  $('run-console').textContent = await file('console');
  $('recipe-card').hidden = !$('run-recipe').textContent;
  $('console-card').hidden = !$('run-console').textContent;
  const matrix = open.files?.includes('confusion');
  $('confusion-card').hidden = !matrix;
  if (matrix && $('confusion').dataset.of !== open.id + evaluations) {
    $('confusion').dataset.of = open.id + evaluations;
    $('confusion').alt = t('confusion_alt');
    URL.revokeObjectURL($('confusion').src);
    $('confusion').src = URL.createObjectURL(await (await ask('/mbuyu/run/confusion?id=' + id)).blob());
  }
}

async function readLabels() {
  if (!$('labels-card').open || !open || $('run-rows').dataset.of === open.id) return;
  $('run-rows').dataset.of = open.id;
  $('run-rows').textContent = t('working');
  try {
    drawRows($('run-rows'), await askJson('/mbuyu/run/inspect?id=' + encodeURIComponent(open.id)));
  } catch (e) {
    $('run-rows').textContent = e.message;
  }
}

/* ---- what it made: files to take away, and the same as GGUF ---- */

let made = null;
const ofMade = (rest = '') => '/mbuyu/run/made' + rest + '?id=' + encodeURIComponent(open.id);

/* A link is followed without the key: where there is one the file is fetched with it. */
async function fetchFile(event, file) {
  if (!hasKey()) return;
  event.preventDefault();
  $('made-note').textContent = t('working');
  try {
    saveBlob(file.name.split('/').pop(), await (await ask(event.currentTarget.getAttribute('href'))).blob());
    $('made-note').textContent = '';
  } catch (e) {
    $('made-note').textContent = e.message;
  }
}

function madeItem(file) {
  const link = make('a', { href: ofMade('/file') + '&place=' + file.place + '&name=' + encodeURIComponent(file.name), download: file.name.split('/').pop() }, file.place + '/' + file.name);
  link.addEventListener('click', (e) => fetchFile(e, file));
  return make('li', {}, link, ' ', make('span', { className: 'note' }, bytes(file.bytes)));
}

function drawMade() {
  $('made-card').hidden = !made?.data.length;
  if (!made) return;
  const focus = document.activeElement?.getAttribute?.('href');
  fill($('made'), ...made.data.map(madeItem));
  if (focus) [...$('made').querySelectorAll('a')].find((a) => a.getAttribute('href') === focus)?.focus();
  const { state, said } = made.gguf;
  $('gguf').disabled = state === 'running';
  $('made-note').textContent = state === 'none' ? '' : t('gguf_' + state);
  $('gguf-said').textContent = said.trim();
  $('gguf-said').hidden = !said.trim();
}

async function readMade() {
  const { id } = open;
  const seen = open.model ? await askJson(ofMade()) : null;
  if (id !== open?.id) return; /* loadRuns() makes new objects of the same runs */
  made = seen;
  drawMade();
}

async function makeGguf() {
  const { id } = open;
  $('made-note').textContent = t('working');
  try {
    const seen = await askJson(ofMade('/gguf'), { json: { dtype: $('gguf-type').value } });
    if (id !== open?.id) return;
    made = seen;
    drawMade();
  } catch (e) {
    if (id === open?.id) $('made-note').textContent = e.message;
  }
}

let evaluations = -1, drawn = null;
async function refresh() {
  if (!open) return;
  const one = open;
  await readLog();
  if (one !== open) return;
  drawHead();
  drawFacts();
  drawCharts();
  drawTable();
  const seen = records.filter((r) => r.eval_loss !== undefined).length;
  if (seen !== evaluations || drawn !== open.state || active(open)) {
    evaluations = seen;
    drawn = open.state;
    await readRest();
  }
}

export async function openRun(id) {
  const found = list.find((r) => r.id === id || r.job === id);
  if (!found) return;
  const other = open?.id !== found.id;
  open = found;
  $('run').hidden = false;
  drawList();
  if (other) {
    records = [];
    next = 0;
    evaluations = -1;
    made = null;
    $('made-card').hidden = true;
    $('run-note').textContent = '';
    delete $('run-rows').dataset.of;
    $('labels-card').open = false;
    makeCharts();
  }
  await refresh();
}

/* While the stall is open: what runs every second, the list every three. */
let ticks = 0;
async function tick() {
  try {
    if (!document.hidden) {
      if (ticks++ % 3 === 0 || active(open)) await loadRuns();
      if (active(open) || drawn !== open?.state) await refresh();
      else if (made?.gguf.state === 'running') await readMade();
    }
    if ($('notice').dataset.of === 'runs') notice('');
  } catch (e) {
    $('notice').dataset.of = 'runs';
    notice(e.message);
  }
  if (timer !== null) timer = setTimeout(tick, 1000);
}

export async function showRuns(id) {
  if (timer === null) timer = setTimeout(tick, 1000);
  await loadRuns();
  if (id) await openRun(id);
  else if (!open && list.length) await openRun(list[0].id);
  else if (open) await refresh();
}

export function hideRuns() {
  clearTimeout(timer);
  timer = null;
}

async function act(what, word) {
  $('run-note').textContent = word ? t(word) : '';
  try {
    await askJson('/v1/fine_tuning/jobs/' + encodeURIComponent(open.job) + '/' + what, { method: 'POST' });
    await loadRuns();
    await refresh();
  } catch (e) {
    $('run-note').textContent = e.message;
  }
}

export function wireRuns(tryModel) {
  $('smooth').addEventListener('input', drawCharts);
  $('log-scale').addEventListener('change', drawCharts);
  $('numbers').addEventListener('toggle', drawTable);
  $('labels-card').addEventListener('toggle', readLabels);
  $('run-stop').addEventListener('click', () => act('cancel', 'stopping'));
  $('gguf').addEventListener('click', makeGguf);
  $('run-resume').addEventListener('click', () => act('resume'));
  $('run-try').addEventListener('click', async () => {
    $('run-note').textContent = t('working');
    try {
      tryModel((await askJson('/mbuyu/run/serve?id=' + encodeURIComponent(open.id), { method: 'POST' })).id);
      $('run-note').textContent = '';
    } catch (e) {
      $('run-note').textContent = e.message;
    }
  });
  document.addEventListener('language', () => {
    drawList();
    if (!open) return;
    makeCharts();
    drawHead();
    drawFacts();
    drawCharts();
    drawTable();
    drawMade();
  });
  document.addEventListener('theme', drawCharts);
}
