/* start.js - the stall where a run is begun: model, data, recipe, a look at what it will do. */
import { $, askJson, bytes, duration, fill, make, notice, number, t, upload } from './base.js';
import { drawRows } from './runs.js';

let choices = null;

/* The plain value of a key in a recipe's text. */
function valueOf(text, key) {
  const found = text.match(new RegExp('^' + key + ':[ \\t]*([^#\\n]*)', 'm'));
  return found ? found[1].trim() : '';
}

const recipe = () => choices?.recipes.find((r) => r.name === $('recipe').value);

function showRecipe() {
  const r = recipe();
  $('recipe-about').textContent = r?.about ?? '';
  $('recipe-text').textContent = r?.text ?? '';
  const fields = { epochs: 'num_train_epochs', batch: 'per_device_train_batch_size', rate: 'learning_rate', 'start-seed': 'seed' };
  for (const [id, key] of Object.entries(fields)) $(id).placeholder = (r && valueOf(r.text, key)) || (key === 'seed' ? '42' : '–');
}

function groups(select, list, none) {
  const before = select.value;
  fill(select, ...list.map((c) => make('option', { value: c.path }, c.name + (c.bytes ? ' · ' + bytes(c.bytes) : ''))));
  if (!list.length) fill(select, make('option', { value: '' }, none));
  if (list.some((c) => c.path === before)) select.value = before;
}

export async function loadChoices(data) {
  choices = await askJson('/mbuyu/choices');
  const served = (await askJson('/v1/models')).data.map((m) => ({ path: m.id, name: m.id }));
  groups($('base'), [...served, ...choices.models], '–');
  groups($('data'), choices.data, t('no_data'));
  if (data) $('data').value = data;
  const before = $('recipe').value;
  fill($('recipe'), ...choices.recipes.map((r) => make('option', { value: r.name }, r.name)));
  if (choices.recipes.some((r) => r.name === before)) $('recipe').value = before;
  else if (choices.recipes.some((r) => r.name === 'chat-lora')) $('recipe').value = 'chat-lora';
  showRecipe();
  $('begin').disabled = !choices.can_train;
  if (!choices.can_train) $('start-note').textContent = t('no_start');
}

/* What is asked for, in the form that jobs, inspect and plan share. */
function wanted() {
  const settings = {};
  const set = (id, key) => { if ($(id).value !== '') settings[key] = $(id).value; };
  set('epochs', 'num_train_epochs');
  set('batch', 'per_device_train_batch_size');
  set('rate', 'learning_rate');
  set('start-seed', 'seed');
  for (const line of $('more').value.split('\n')) {
    const at = line.search(/[:=]/);
    if (line.trim() && !line.trim().startsWith('#')) {
      if (at < 1) throw new Error(t('more'));
      settings[line.slice(0, at).trim()] = line.slice(at + 1).trim();
    }
  }
  return { model: $('base').value, data: $('data').value, recipe: $('recipe').value, settings };
}

async function guarded(button, work) {
  notice('');
  button.disabled = true;
  $('start-note').textContent = t('working');
  try {
    await work();
    $('start-note').textContent = '';
  } catch (e) {
    $('start-note').textContent = '';
    notice(e.message);
    $('notice').scrollIntoView({ block: 'center' });
  }
  button.disabled = false;
}

function drawPlan(p) {
  const table = make('table', {}, make('thead', {}, make('tr', {}, make('th', {}, 'MiB'), ...p.phases.map((name) => make('th', {}, name)))),
    make('tbody', {}, ...p.parts.map((part) => make('tr', {}, make('th', {}, part.name),
      ...part.bytes.map((n) => make('td', {}, number(n / 2 ** 20, 4))))),
    make('tr', {}, make('th', {}, 'total'), ...p.total.map((n, i) => make('td', { className: i === p.peak ? 'marked' : '' }, number(n / 2 ** 20, 4))))));
  for (const th of table.querySelectorAll('thead th')) th.scope = 'col';
  for (const th of table.querySelectorAll('tbody th')) th.scope = 'row';
  const scroll = make('div', { className: 'scroll', tabIndex: 0 }, table);
  scroll.setAttribute('role', 'region');
  scroll.setAttribute('aria-label', t('plan_title'));
  fill($('plan-out'),
    make('p', {}, make('b', {}, t(p.fits ? 'fits' : 'fits_not', number(p.needed / 2 ** 20, 4), number(p.free / 2 ** 20, 6)))),
    make('p', {}, t('plan_steps', number(p.steps, 8), number(p.step_rows, 8), number(p.parameters, 10), number(p.trained, 10), number(p.rows, 8))),
    p.hours ? make('p', {}, t('plan_time', duration(3600 * p.hours))) : null,
    scroll,
    p.changes?.length ? make('h3', {}, t('changes')) : null,
    p.changes?.length ? make('ul', {}, ...p.changes.map((c) => make('li', {}, c.keys + (c.note ? ' (' + c.note + ')' : '')))) : null);
}

export function wireStart(showRun) {
  $('recipe').addEventListener('change', showRecipe);
  document.addEventListener('language', showRecipe);
  $('upload').addEventListener('change', (e) => {
    const file = e.target.files[0];
    if (!file) return;
    const form = new FormData();
    form.append('purpose', 'fine-tune');
    form.append('file', file, file.name);
    guarded($('begin'), async () => {
      $('upload-progress').hidden = false;
      try {
        const made = await upload('/v1/files', form, (share) => { $('upload-progress').value = share; });
        await loadChoices(made.id);
        $('upload-note').textContent = t('uploaded', made.filename);
      } finally {
        $('upload-progress').hidden = true;
        e.target.value = '';
      }
    });
  });
  $('look').addEventListener('click', () => guarded($('look'), async () => {
    drawRows($('look-out'), await askJson('/mbuyu/inspect', { json: wanted() }));
    $('look-card').hidden = false;
    $('look-card').scrollIntoView({ block: 'start' });
  }));
  $('plan').addEventListener('click', () => guarded($('plan'), async () => {
    drawPlan(await askJson('/mbuyu/plan', { json: wanted() }));
    $('plan-card').hidden = false;
    $('plan-card').scrollIntoView({ block: 'start' });
  }));
  $('start-form').addEventListener('submit', (e) => {
    e.preventDefault();
    guarded($('begin'), async () => {
      const w = wanted();
      const job = await askJson('/v1/fine_tuning/jobs', {
        json: { model: w.model, training_file: w.data, suffix: $('suffix').value || undefined, mbuyu: { recipe: w.recipe, settings: w.settings } },
      });
      showRun(job.id);
    });
  });
}
