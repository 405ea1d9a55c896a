#include "server/page.h"

#include <string_view>

namespace dmc::server {
namespace {

constexpr std::string_view kStyle = R"css(
:root { color-scheme: light dark; --back: #fbfaf7; --card: #fff; --ink: #1d2127; --soft: #626b76;
  --line: #dcd9d1; --accent: #0b6e75; --on-accent: #fff; --you: #e9f1f1; --bad: #a3261f; }
@media (prefers-color-scheme: dark) { :root { --back: #14171a; --card: #1c2024; --ink: #e8e6e1;
  --soft: #9aa3ad; --line: #33383e; --accent: #4fb3ba; --on-accent: #0c1214; --you: #22302f;
  --bad: #ff8f85; } }
* { box-sizing: border-box; }
[hidden] { display: none !important; }
body { margin: 0; background: var(--back); color: var(--ink); font: 16px/1.5 system-ui, sans-serif;
  height: 100dvh; display: grid; grid-template: auto 1fr / 1fr 20rem; }
header { grid-column: 1 / 3; padding: .6rem 1rem; border-bottom: 1px solid var(--line);
  display: flex; gap: .75rem; align-items: baseline; flex-wrap: wrap; }
h1 { font-size: 1.05rem; margin: 0; }
h2 { font-size: .95rem; margin: 0 0 .4rem; }
.soft { color: var(--soft); font-size: .85rem; }
main { display: grid; grid-template-rows: 1fr auto; min-height: 0; min-width: 0; }
#log { overflow-y: auto; padding: 1rem; display: flex; flex-direction: column; gap: .75rem; }
.turn { background: var(--card); border: 1px solid var(--line); border-radius: .6rem;
  padding: .6rem .8rem; white-space: pre-wrap; overflow-wrap: anywhere; max-width: 48rem; }
.turn.user { background: var(--you); align-self: flex-end; }
.turn.code { font-family: ui-monospace, monospace; font-size: .9rem; }
.turn.error { color: var(--bad); border-color: currentColor; }
.given { color: var(--soft); }
form { display: flex; gap: .5rem; padding: .75rem 1rem; border-top: 1px solid var(--line); }
textarea, input, button { font: inherit; color: inherit; border-radius: .5rem;
  border: 1px solid var(--line); background: var(--card); padding: .45rem .6rem; }
textarea { flex: 1; resize: vertical; min-height: 2.7rem; min-width: 0; }
button { background: var(--accent); color: var(--on-accent); border-color: transparent;
  cursor: pointer; min-width: 4.5rem; }
button.plain { background: transparent; color: var(--accent); border-color: var(--line);
  min-width: 0; padding: .2rem .6rem; margin-left: auto; }
:focus-visible { outline: 2px solid var(--accent); outline-offset: 2px; }
aside { border-left: 1px solid var(--line); padding: 1rem; overflow-y: auto; }
aside section { margin-bottom: 1.25rem; }
dl { display: grid; grid-template-columns: 1fr auto; gap: .1rem .75rem; margin: 0; }
dt { color: var(--soft); } dd { margin: 0; font-variant-numeric: tabular-nums; text-align: right; }
#map { display: grid; gap: 2px; margin: .3rem 0; }
#map div { height: 1.15rem; border-radius: 3px; min-width: 3px; }
#map span { font-size: .75rem; color: var(--soft); padding-right: .3rem; }
.bar { margin-top: .5rem; height: .7rem; background: var(--line); border-radius: .35rem; overflow: hidden; }
.bar div { height: 100%; background: var(--accent); width: 0; }
label { display: grid; grid-template-columns: 1fr 7rem; gap: .5rem; align-items: center;
  margin-bottom: .35rem; font-size: .9rem; }
label.wide { grid-template-columns: 1fr; }
input { width: 100%; padding: .25rem .5rem; }
@media (max-width: 760px) { body { grid-template: auto minmax(45dvh, 1fr) auto / 1fr; height: auto;
  min-height: 100dvh; } header { grid-column: 1; } main { height: 70dvh; }
  aside { border-left: 0; border-top: 1px solid var(--line); } }
)css";

constexpr std::string_view kBody = R"html(
<header><h1>dmc</h1><span id="model" class="soft">asking for the model …</span>
<button type="button" class="plain" id="clear">New text</button></header>
<main><div id="log" role="log" aria-live="polite" aria-label="Texts"></div>
<form id="form"><textarea id="input" rows="2" aria-label="Your text" autofocus></textarea>
<button id="send">Send</button></form></main>
<aside aria-label="Cache and settings">
<section><h2>Cache</h2><dl>
<dt>tokens seen</dt><dd id="seen">–</dd><dt>slots kept a head</dt><dd id="kept">–</dd>
<dt>compression ratio</dt><dd id="ratio">–</dd><dt>bytes</dt><dd id="bytes">–</dd>
<dt>bytes if dense</dt><dd id="dense">–</dd><dt>from earlier texts</dt><dd id="cached">–</dd>
<dt>speed</dt><dd id="speed">–</dd></dl>
<div class="bar" title="bytes against a dense cache"><div id="share"></div></div></section>
<section><h2>Slots by layer and KV head</h2><div id="map" role="img"
aria-label="Slots that each layer and head keeps"></div>
<div class="soft">full colour: keeps every token; faint: compresses most</div></section>
<section><h2>Settings</h2>
<label>Temperature<input id="temperature" type="number" min="0" max="2" step="0.1" value="0.7"></label>
<label>Top p<input id="top_p" type="number" min="0.01" max="1" step="0.01" value="0.95"></label>
<label>Tokens at most<input id="max_tokens" type="number" min="1" value="256"></label>
<label>Seed<input id="seed" type="number" placeholder="random"></label>
<label class="wide" id="system-label">System message<textarea id="system" rows="2"></textarea></label>
<label class="wide">API key<input id="key" type="password" autocomplete="off"
placeholder="if the server asks for one"></label></section>
<div class="soft">Enter sends, Shift+Enter makes a line, Esc stops.</div></aside>
)html";

constexpr std::string_view kScript = R"js(
'use strict';
const $ = id => document.getElementById(id);
let model = null, chat = false, messages = [], running = null;
const number = id => $(id).value === '' ? null : Number($(id).value);
const headers = () => Object.assign({'Content-Type': 'application/json'},
    $('key').value ? {'Authorization': 'Bearer ' + $('key').value} : {});
function human(bytes) {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
  let i = 0;
  while (bytes >= 1024 && i < 4) { bytes /= 1024; ++i; }
  return (bytes < 10 && i ? bytes.toFixed(1) : Math.round(bytes)) + ' ' + units[i];
}
function add(role, text) {
  const turn = document.createElement('div');
  turn.className = 'turn ' + role;
  turn.textContent = text;
  $('log').append(turn);
  turn.scrollIntoView({block: 'end'});
  return turn;
}
async function ask() {
  const answer = await fetch('v1/models', {headers: headers()});
  if (!answer.ok) { $('model').textContent = 'the server asks for an API key (see the settings)'; return; }
  model = (await answer.json()).data[0];
  chat = model.dmc.chat;
  $('model').textContent = model.id + ' · ' + model.dmc.policy + ' · context ' + model.max_model_len +
      (chat ? '' : ' · continues texts');
  $('input').placeholder = chat ? 'A message' : 'A text to continue';
  $('system-label').hidden = !chat;
}
// A cell has the more colour, the more of the tokens its head keeps.
function heat(slots, seen) {
  const map = $('map'), heads = slots[0].length;
  map.style.gridTemplateColumns = 'auto repeat(' + heads + ', 1fr)';
  if (map.childElementCount !== slots.length * (heads + 1)) {
    map.replaceChildren(...slots.flatMap((row, layer) => {
      const name = document.createElement('span');
      name.textContent = layer;
      return [name, ...row.map(() => document.createElement('div'))];
    }));
  }
  slots.forEach((row, layer) => row.forEach((kept, head) => {
    const cell = map.children[layer * (heads + 1) + 1 + head], part = Math.min(1, kept / seen);
    cell.style.background = 'color-mix(in srgb, var(--accent) ' + Math.round(8 + 92 * part) +
        '%, var(--back))';
    cell.title = 'layer ' + layer + ', head ' + head + ': ' + kept + ' of ' + seen +
        ' (' + (seen / kept).toFixed(1) + 'x)';
  }));
}
function show(usage, seconds) {
  const cache = usage.dmc;
  if (!cache || !cache.tokens_seen) return;
  $('seen').textContent = cache.tokens_seen;
  $('kept').textContent = cache.slots_kept.toFixed(1);
  $('ratio').textContent = cache.compression_ratio.toFixed(2) + 'x';
  $('bytes').textContent = human(cache.cache_bytes);
  $('dense').textContent = human(cache.dense_bytes);
  $('cached').textContent = usage.prompt_tokens_details.cached_tokens + ' of ' + usage.prompt_tokens;
  $('speed').textContent = (usage.completion_tokens / seconds).toFixed(1) + ' tok/s';
  $('share').style.width = (100 * cache.cache_bytes / cache.dense_bytes).toFixed(1) + '%';
  if (cache.slots) heat(cache.slots, cache.tokens_seen);
}
// Calls `each` with every event of the stream.
async function read(answer, each) {
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = '';
  for (;;) {
    const {value, done} = await reader.read();
    if (done) return;
    const events = (rest + value).split('\n\n');
    rest = events.pop();
    for (const event of events) {
      if (event.startsWith('data: ') && event !== 'data: [DONE]') each(JSON.parse(event.slice(6)));
    }
  }
}
async function write(text) {
  const body = {model: model.id, stream: true, temperature: number('temperature'),
    top_p: number('top_p'), max_tokens: number('max_tokens'), seed: number('seed'),
    stream_options: {include_usage: true, continuous_usage_stats: true}, dmc: {slots: true}};
  let turn, before = '', reply = '';
  if (chat) {
    messages.push({role: 'user', content: text});
    add('user', text);
    const system = $('system').value ? [{role: 'system', content: $('system').value}] : [];
    body.messages = [...system, ...messages];
    turn = add('assistant', '');
  } else {
    body.prompt = text;
    turn = add('code', '');
    const given = document.createElement('span');
    given.className = 'given';
    given.textContent = text;
    turn.append(given);
  }
  const shown = document.createTextNode('');
  turn.append(shown);
  running = new AbortController();
  $('send').textContent = 'Stop';
  const start = performance.now();
  // Once a frame, however fast the tokens come, so that keys and buttons are heard.
  let usage = null, frame = 0;
  const draw = () => {
    frame = 0;
    shown.data = reply;
    if (usage) show(usage, (performance.now() - start) / 1000);
    $('log').scrollTop = $('log').scrollHeight;
  };
  try {
    const answer = await fetch(chat ? 'v1/chat/completions' : 'v1/completions',
        {method: 'POST', headers: headers(), body: JSON.stringify(body), signal: running.signal});
    if (!answer.ok) throw new Error((await answer.json()).error.message);
    await read(answer, event => {
      if (event.error) throw new Error(event.error.message);
      for (const choice of event.choices) reply += (chat ? choice.delta.content : choice.text) || '';
      usage = event.usage || usage;
      frame ||= requestAnimationFrame(draw);
    });
  } catch (error) {
    if (error.name !== 'AbortError') add('error', error.message);
  }
  cancelAnimationFrame(frame);
  draw();
  if (chat && reply) messages.push({role: 'assistant', content: reply});
  running = null;
  $('send').textContent = 'Send';
}
$('form').addEventListener('submit', async event => {
  event.preventDefault();
  if (running) { running.abort(); return; }
  if (!model) await ask();
  const text = $('input').value;
  if (!model || !text) return;
  $('input').value = '';
  await write(text);
  $('input').focus();
});
$('input').addEventListener('keydown', event => {
  if (event.key === 'Enter' && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    $('form').requestSubmit();
  }
});
document.addEventListener('keydown', event => { if (event.key === 'Escape' && running) running.abort(); });
$('clear').addEventListener('click', () => {
  if (running) running.abort();
  messages = [];
  $('log').replaceChildren();
  $('input').focus();
});
$('key').addEventListener('change', ask);
ask();
)js";

std::string make_page() {
  std::string page =
      "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">"
      "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">"
      "<link rel=\"icon\" href=\"data:,\"><title>dmc</title><style>";
  page += kStyle;
  page += "</style></head><body>";
  page += kBody;
  page += "<script>";
  page += kScript;
  page += "</script></body></html>\n";
  return page;
}

}  // namespace

const std::string& page_html() {
  static const std::string page = make_page();
  return page;
}

}  // namespace dmc::server
