/* try.js - the stall where a model is tried, by what it can do. */
import { $, ask, askJson, bars, copyText, events, fill, make, notice, number, saveText, t } from './base.js';
import { record } from './sound.js';

let models = [];      /* of /v1/models */
const talk = [];      /* {user, answers: [text, ...]} */
let busy = null;      /* AbortController of the answers being written */

/* What a task (of /v1/models) is tried with. */
const stalls = {
  text: { box: 'task-chat', lead: 'lead_chat' },
  translation: { box: 'task-text', lead: 'lead_translate', go: translate },
  'text-classification': { box: 'task-text', lead: 'lead_labels', go: classify },
  embeddings: { box: 'task-text', lead: 'lead_similar', go: compareTexts, two: true },
  'image-classification': { box: 'task-picture', lead: 'lead_picture' },
  transcription: { box: 'task-sound', lead: 'lead_sound' },
};

const taskOf = (id) => models.find((m) => m.id === id)?.task ?? 'text';
const model = () => $('model').value;

export async function loadModels(wanted) {
  models = (await askJson('/v1/models')).data;
  const before = wanted ?? model();
  const option = (m) => make('option', { value: m.id }, m.id);
  fill($('model'), ...models.map(option));
  if (models.some((m) => m.id === before)) $('model').value = before;
  const other = $('other').value;
  const chats = models.filter((m) => taskOf(m.id) === 'text');
  fill($('other'), make('option', { value: '' }, '– ' + t('nothing')), ...chats.map(option));
  if (chats.some((m) => m.id === other)) $('other').value = other;
  choose();
}

function choose() {
  const none = models.length === 0;
  const task = none ? null : taskOf(model());
  const stall = stalls[task];
  for (const box of document.querySelectorAll('.task')) box.hidden = box.id !== stall?.box;
  $('task-none').hidden = Boolean(stall);
  $('task-none').textContent = none ? t('no_models') : t('no_stall') + task;
  $('try-lead').textContent = stall ? t(stall.lead) : '';
  $('other-box').hidden = task !== 'text' || models.filter((m) => taskOf(m.id) === task).length < 2;
  $('second-box').hidden = !stall?.two;
  fill($('text-out'));
  drawTalks();
}

/* ---- chat ---- */

const columns = () => [model(), ...($('other-box').hidden || !$('other').value ? [] : [$('other').value])];

function drawTalks() {
  const ids = columns();
  fill($('talks'), ...ids.map((id, c) => {
    const box = make('div', { className: 'talk', tabIndex: 0 });
    box.setAttribute('role', 'log');
    box.setAttribute('aria-label', id);
    if (ids.length > 1) box.append(make('h2', {}, id));
    if (talk.length === 0) box.append(make('div', { className: 'empty' }, make('img', { src: 'mark.svg', alt: '', width: 72, height: 72 }), t('empty')));
    for (const turn of talk) {
      box.append(make('div', { className: 'turn user' }, turn.user));
      if (turn.answers[c] !== undefined) box.append(make('div', { className: 'turn assistant' }, turn.answers[c]));
    }
    return box;
  }));
  $('again').disabled = $('copy').disabled = $('save').disabled = $('clear').disabled = talk.length === 0;
}

function messages(c) {
  const system = $('system').value.trim();
  const list = system ? [{ role: 'system', content: system }] : [];
  for (const turn of talk) {
    list.push({ role: 'user', content: turn.user });
    if (turn !== talk[talk.length - 1] && turn.answers[c]) list.push({ role: 'assistant', content: turn.answers[c] });
  }
  return list;
}

const setting = (id, fallback) => ($(id).value === '' || Number.isNaN(Number($(id).value)) ? fallback : Number($(id).value));

async function answer(id, c, signal) {
  const turn = talk[talk.length - 1];
  const box = $('talks').children[c];
  const line = make('div', { className: 'turn assistant busy' });
  const began = performance.now();
  let first = 0, count = 0, usage = null, timings = null;
  turn.answers[c] = '';
  box.append(line);
  try {
    const stream = await ask('/v1/chat/completions', {
      signal,
      json: {
        model: id, messages: messages(c), stream: true, stream_options: { include_usage: true },
        temperature: setting('temperature', 0.7), top_p: setting('top-p', 1),
        max_tokens: Math.round(setting('most', 256)), seed: Math.round(setting('seed', 42)),
      },
    });
    for await (const chunk of events(stream)) {
      if (chunk.error) throw new Error(chunk.error.message);
      const text = chunk.choices?.[0]?.delta?.content;
      usage = chunk.usage ?? usage;
      timings = chunk.timings ?? timings;
      if (!text) continue;
      first ||= performance.now();
      count++;
      turn.answers[c] += text;
      const near = box.scrollHeight - box.scrollTop - box.clientHeight < 80;
      line.textContent = turn.answers[c];
      if (near) box.scrollTop = box.scrollHeight;
    }
  } catch (e) {
    if (e.name !== 'AbortError') throw e;
    line.title = t('stopped');
  } finally {
    line.classList.remove('busy');
  }
  const tokens = usage?.completion_tokens ?? count;
  const seconds = (performance.now() - (first || began)) / 1000;
  return t('speed', tokens, number(timings?.predicted_per_second ?? (seconds > 0 ? tokens / seconds : 0), 3));
}

async function answerAll() {
  if (busy) return;
  notice('');
  drawTalks();
  busy = new AbortController();
  $('stop').hidden = false;
  $('send').disabled = $('again').disabled = true;
  $('speed').textContent = '';
  try {
    const said = await Promise.all(columns().map((id, c) => answer(id, c, busy.signal)));
    $('speed').textContent = (busy.signal.aborted ? t('stopped') + ' · ' : '') + said.join(' · ');
  } catch (e) {
    notice(e.message);
  }
  busy = null;
  $('stop').hidden = true;
  $('send').disabled = false;
  $('again').disabled = $('copy').disabled = $('save').disabled = $('clear').disabled = false;
  $('say').focus({ preventScroll: true });
}

function asMarkdown() {
  return talk.map((turn) => '**' + turn.user + '**\n\n' + columns().map((id, c) =>
    (columns().length > 1 ? '*' + id + '*: ' : '') + (turn.answers[c] ?? '')).join('\n\n')).join('\n\n');
}

/* Rows that mbuyu train reads: a conversation a line. */
function asRows() {
  return columns().map((id, c) => JSON.stringify({
    model: id, messages: talk.flatMap((turn) => [{ role: 'user', content: turn.user }, { role: 'assistant', content: turn.answers[c] ?? '' }]),
  })).join('\n') + '\n';
}

function wireChat() {
  $('composer').addEventListener('submit', (e) => {
    e.preventDefault();
    const text = $('say').value.trim();
    if (!text || busy) return;
    talk.push({ user: text, answers: [] });
    $('say').value = '';
    answerAll();
  });
  $('say').addEventListener('keydown', (e) => {
    if (e.key === 'Enter' && !e.shiftKey && !e.isComposing) {
      e.preventDefault();
      $('composer').requestSubmit();
    }
  });
  $('stop').addEventListener('click', () => busy?.abort());
  $('again').addEventListener('click', () => {
    if (!talk.length) return;
    talk[talk.length - 1].answers = [];
    answerAll();
  });
  $('copy').addEventListener('click', () => copyText(asMarkdown(), $('copy')));
  $('save').addEventListener('click', () => saveText('conversation.jsonl', asRows(), 'application/jsonl'));
  $('clear').addEventListener('click', () => {
    busy?.abort();
    talk.length = 0;
    $('speed').textContent = '';
    drawTalks();
  });
  $('other').addEventListener('change', () => {
    drawTalks();
    if (talk.length && columns().length > 1) $('again').click();
  });
}

/* ---- texts ---- */

async function translate(text, out) {
  const body = await askJson('/v1/translations', { json: { model: model(), input: text } });
  out.textContent = body.data[0].text;
}

async function classify(text, out) {
  const body = await askJson('/v1/classifications', { json: { model: model(), input: text } });
  fill(out, bars(body.data[0].probabilities));
}

async function compareTexts(text, out) {
  const body = await askJson('/v1/embeddings', { json: { model: model(), input: [text, $('second').value], encoding_format: 'float' } });
  const [a, b] = body.data.map((d) => d.embedding);
  const dot = (u, v) => u.reduce((s, x, i) => s + x * v[i], 0);
  const score = dot(a, b) / Math.sqrt(dot(a, a) * dot(b, b));
  fill(out, bars([{ label: t('similarity'), probability: score }]));
}

async function guarded(work, status) {
  notice('');
  if (status) status.textContent = t('working');
  try {
    await work();
  } catch (e) {
    notice(e.message);
  }
  if (status) status.textContent = '';
}

function wireTexts() {
  $('text-form').addEventListener('submit', (e) => {
    e.preventDefault();
    const text = $('source').value;
    if (text.trim()) guarded(() => stalls[taskOf(model())].go(text, $('text-out')), $('text-note'));
  });
}

/* ---- pictures ---- */

function lookAt(blob, name) {
  $('picture').src = URL.createObjectURL(blob);
  $('picture').alt = t('chosen_picture');
  $('picture').hidden = false;
  $('drop-hint').hidden = true;
  guarded(async () => {
    const form = new FormData();
    form.append('model', model());
    form.append('image', blob, name);
    $('picture-out').textContent = t('working');
    try {
      const body = await askJson('/v1/images/classifications', { form });
      fill($('picture-out'), bars(body.data[0].probabilities));
    } catch (e) {
      fill($('picture-out'));
      throw e;
    }
  });
}

async function cameraOn() {
  const video = $('camera');
  if (video.srcObject) return cameraOff();
  try {
    video.srcObject = await navigator.mediaDevices.getUserMedia({ video: { facingMode: 'environment' } });
    await video.play();
    video.hidden = $('snap').hidden = false;
    $('picture').hidden = $('drop-hint').hidden = true;
  } catch {
    notice(t('no_device'));
  }
}

function cameraOff() {
  $('camera').srcObject?.getTracks().forEach((track) => track.stop());
  $('camera').srcObject = null;
  $('camera').hidden = $('snap').hidden = true;
}

function wirePictures() {
  const drop = $('drop');
  $('picture-file').addEventListener('change', (e) => e.target.files[0] && lookAt(e.target.files[0], e.target.files[0].name));
  drop.addEventListener('dragover', (e) => {
    e.preventDefault();
    drop.classList.add('over');
  });
  drop.addEventListener('dragleave', () => drop.classList.remove('over'));
  drop.addEventListener('drop', (e) => {
    e.preventDefault();
    drop.classList.remove('over');
    const file = e.dataTransfer.files[0];
    if (file) lookAt(file, file.name);
  });
  $('camera-on').addEventListener('click', cameraOn);
  $('snap').addEventListener('click', () => {
    const video = $('camera');
    const canvas = make('canvas', { width: video.videoWidth, height: video.videoHeight });
    canvas.getContext('2d').drawImage(video, 0, 0);
    cameraOff();
    canvas.toBlob((blob) => lookAt(blob, 'photo.jpg'), 'image/jpeg', 0.92);
  });
}

/* ---- sounds ---- */

let recording = null;

function hear(blob, name) {
  $('sound').src = URL.createObjectURL(blob);
  $('sound').hidden = false;
  $('sound-out').textContent = '';
  guarded(async () => {
    const form = new FormData();
    form.append('model', model());
    form.append('file', blob, name);
    if ($('spoken').value.trim()) form.append('language', $('spoken').value.trim());
    $('sound-out').textContent = (await askJson('/v1/audio/transcriptions', { form })).text;
  }, $('sound-note'));
}

function drawLevel(samples) {
  const canvas = $('level'), pen = canvas.getContext('2d');
  const loud = Math.min(1, 4 * Math.sqrt(samples.reduce((s, x) => s + x * x, 0) / samples.length));
  pen.drawImage(canvas, -4, 0);
  pen.clearRect(canvas.width - 4, 0, 4, canvas.height);
  pen.fillStyle = getComputedStyle($('record')).color;
  pen.fillRect(canvas.width - 3, canvas.height / 2 * (1 - loud), 2, canvas.height * loud + 2);
}

async function toggleRecord() {
  const button = $('record');
  if (recording) {
    const r = recording;
    recording = null;
    button.setAttribute('aria-pressed', 'false');
    $('record-word').textContent = t('record');
    return hear(await r.stop(), 'recording.wav');
  }
  try {
    recording = await record(drawLevel);
    button.setAttribute('aria-pressed', 'true');
    $('record-word').textContent = t('recording');
  } catch {
    notice(t('no_device'));
  }
}

function wireSounds() {
  $('record').addEventListener('click', toggleRecord);
  $('sound-file').addEventListener('change', (e) => e.target.files[0] && hear(e.target.files[0], e.target.files[0].name));
  $('sound-copy').addEventListener('click', () => copyText($('sound-out').textContent, $('sound-copy')));
}

export function wireTry() {
  $('model').addEventListener('change', choose);
  document.addEventListener('language', choose);
  wireChat();
  wireTexts();
  wirePictures();
  wireSounds();
}
