"use strict";

const byId = (id) => document.getElementById(id);
const state = { request: null, candidate: 0 };

// Everything that comes from the data set enters the page as text, never as markup.
function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

async function ask(path, parameters) {
  const reply = await fetch(`/explore/${path}?${new URLSearchParams(parameters)}`);
  const answer = await reply.json();
  if (!reply.ok) throw new Error(answer.error);
  return answer;
}

// Only the latest call of its kind is shown, whatever order the answers come in. A problem stays
// until the same kind of work succeeds: a list that arrives later says nothing about it.
let failed = null;
function latest(work) {
  let calls = 0;
  return async (...given) => {
    const mine = ++calls;
    try {
      const show = await work(...given);
      if (mine !== calls) return;
      if (failed === work) byId("problem").hidden = true;
      show();
    } catch (error) {
      if (mine !== calls) return;
      failed = work;
      byId("problem").textContent = error.message;
      byId("problem").hidden = false;
    }
  };
}

const percent = (share) => `${(100 * share).toFixed(share < 0.0995 ? 1 : 0)}%`;

function valueOf(record, name) {
  if (record.unknown.includes(name)) return "unknown";
  const value = record.fields[name] ?? "missing";
  return Array.isArray(value) ? value.join(" | ") || "none" : String(value);
}

function named(record) {
  const parts = Object.keys(record.fields).flatMap((name) =>
    [element("span", { class: "pair" }, element("span", { class: "soft" }, name), ` ${valueOf(record, name)}`), "  "]);
  const line = element("span", { class: "name" }, ...parts);
  if (record.unknown.length) {
    const title = `Not in the model's vocabulary: ${record.unknown.join(", ")}`;
    line.append(element("span", { class: "tag unknown", title }, "unknown to the model"));
  }
  return line;
}

function bar(share, against = false) {
  const fill = element("div", { class: against ? "fill against" : "fill" });
  fill.style.width = `${100 * Math.min(1, Math.max(0, share))}%`;
  return element("div", { class: "track", "aria-hidden": "true" }, fill);
}

const findUsers = latest(async (text) => {
  const { users, found, unknown, split } = await ask("users", { q: text });
  return () => {
    const shown = users.length < found ? `, the first ${users.length} shown` : "";
    const many = users.some(({ requests }) => requests > 1) ? "; in brackets, of how many requests" : "";
    const strangers = unknown ? `; ${unknown} unknown to the model, dashed and last` : "";
    byId("found").textContent = `${found} ${found === 1 ? "user" : "users"} in the ${split} split${shown}${strangers}${many}`;
    byId("users").replaceChildren(...users.map(({ user, requests, unknown: isUnknown }) => {
      const label = requests > 1 ? `${user} (${requests})` : user;
      const mark = isUnknown && { class: "unknown", title: "Not in the model's vocabulary" };
      const button = element("button", { type: "button", "aria-pressed": "false", "data-user": user, ...mark }, label);
      button.addEventListener("click", () => { location.hash = new URLSearchParams({ user }); });
      return element("li", {}, button);
    }));
    markUser();
  };
});

function markUser() {
  const chosen = new URLSearchParams(location.hash.slice(1)).get("user");
  for (const button of byId("users").querySelectorAll("button")) {
    button.setAttribute("aria-pressed", String(button.dataset.user === chosen));
  }
}

// The address names what is shown, so that it can be sent to somebody and the back button works.
const openAddress = latest(async () => {
  const asked = new URLSearchParams(location.hash.slice(1));
  const user = asked.get("user");
  if (user === null) return () => { byId("request").hidden = true; };
  const indices = await ask("requests", { user });
  const index = indices.includes(Number(asked.get("request"))) ? Number(asked.get("request")) : indices.at(-1);
  const request = await ask("why", { request: index });
  return () => show(user, indices, request);
});

function show(user, indices, request) {
  const isNew = byId("user-title").textContent !== `User ${user}`;
  state.request = request;
  state.candidate = 0;
  byId("user-title").textContent = `User ${user}`;
  byId("subtitle").textContent = `Requests of the data set, ranked by version ${request.version} of the served model.`;
  byId("request-choice").hidden = indices.length < 2;
  byId("which").replaceChildren(...indices.map((index, i) =>
    element("option", { value: index, ...(index === request.index && { selected: "" }) }, `${i + 1} of ${indices.length}`)));
  const facts = Object.keys(request.user.fields).map((name) => [name, valueOf(request.user, name)]);
  if (request.request_id) facts.push(["request", request.request_id]);
  if (request.timestamp !== "0") facts.push(["time stamp", request.timestamp]);
  byId("facts").replaceChildren(...facts.flatMap(([name, value]) =>
    [element("dt", {}, name), element("dd", {}, value)]));
  showCandidates();
  showLenses();
  showHistory();
  byId("request").hidden = false;
  markUser();
  if (isNew) byId("user-title").focus();
}

// Weights that differ by less than a tenth of their size: bars would suggest an order.
function isFlat(weights) {
  const largest = Math.max(...weights), least = Math.min(...weights);
  return weights.length > 1 && largest - least < 0.1 * Math.max(Math.abs(largest), Math.abs(least));
}

function showCandidates() {
  const { candidates } = state.request;
  const experts = candidates[0].confidence.length;
  byId("candidates-help").textContent = experts > 1
    ? "Bars: how much each interest expert counts for the score. Choose a candidate to see what its experts looked at."
    : experts ? "Choose a candidate to see what the model looked at."
      : "This model gives no reasons, only scores.";
  if (experts > 1 && candidates.every(({ confidence }) => isFlat(confidence))) {
    byId("candidates-help").textContent += ` All experts count alike (${percent(1 / experts)} each): none is chosen.`;
  }
  byId("candidates").replaceChildren(...candidates.map((candidate, i) => {
    const radio = element("input", { type: "radio", name: "candidate", value: i });
    radio.checked = i === state.candidate;
    radio.addEventListener("change", () => { state.candidate = i; showHistory(); });
    const name = named(candidate);
    if (candidate.label) name.append(element("span", { class: "tag clicked" }, "clicked"));
    const label = element("label", { class: "candidate" }, radio, name,
      element("span", { class: "number score" }, candidate.score.toFixed(4)));
    if (experts > 1) {
      const bars = candidate.confidence.flatMap((share, k) =>
        [element("span", {}, `Expert ${k + 1}`), bar(share), element("span", { class: "number" }, percent(share))]);
      label.append(element("div", { class: "rest bars" }, ...bars));
    }
    return label;
  }));
}

function showLenses() {
  const experts = state.request.candidates[0].confidence.length;
  byId("lens-choice").hidden = experts < 2;
  const previous = Number(byId("lens").value || -1);
  const names = ["all experts, by confidence", ...Array.from({ length: experts }, (_, k) => `expert ${k + 1}`)];
  byId("lens").replaceChildren(...names.map((name, i) => element("option", { value: i - 1 }, name)));
  byId("lens").value = previous < experts ? previous : -1;
}

function attention() {
  const { confidence, attention: weights } = state.request.candidates[state.candidate];
  const lens = Number(byId("lens").value);
  const shares = confidence.map((share, k) => (lens < 0 ? share : Number(k === lens)));
  return state.request.history.map((_, i) =>
    weights.reduce((sum, row, k) => sum + shares[k] * row[i], 0));
}

function showHistory() {
  const { history, candidates } = state.request;
  const has = candidates[0].attention.length > 0;
  const weights = attention();
  const largest = Math.max(...weights.map(Math.abs), 1e-12);
  byId("history-help").textContent = !history.length ? "This user has no history."
    : has ? `Attention of candidate ${state.candidate + 1} to each of the ${history.length} events; the longest bar is the largest.` +
        (weights.some((weight) => weight < 0) ? " Orange counts against." : "") +
        ` From ${Math.min(...weights).toFixed(3)} to ${Math.max(...weights).toFixed(3)}` +
        (isFlat(weights) ? ": flat, so that these events are hardly told apart." : ".")
      : `${history.length} events.`;
  byId("history").replaceChildren(...history.map((event, i) => {
    const row = element("div", { class: "row" }, element("span", { class: "number place" }, String(i + 1)), named(event));
    const item = element("li", {}, row);
    if (has) {
      row.append(element("span", { class: "number" }, weights[i].toFixed(3)));
      item.append(bar(Math.abs(weights[i]) / largest, weights[i] < 0));
    }
    return item;
  }).reverse());
}

let typing;
byId("query").addEventListener("input", () => {
  clearTimeout(typing);
  typing = setTimeout(() => findUsers(byId("query").value), 150);
});
byId("search").addEventListener("submit", (event) => {
  event.preventDefault();
  findUsers(byId("query").value);
});
byId("which").addEventListener("change", () => {
  const user = new URLSearchParams(location.hash.slice(1)).get("user");
  location.hash = new URLSearchParams({ user, request: byId("which").value });
});
byId("lens").addEventListener("change", showHistory);
window.addEventListener("hashchange", openAddress);
findUsers("");
openAddress();
