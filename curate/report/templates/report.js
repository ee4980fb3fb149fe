"use strict";
// Draws the charts and runs the list of records. Record text only ever becomes textContent.
(() => {
  const $ = (id) => document.getElementById(id);
  const json = (id) => JSON.parse($(id).textContent);
  const about = json("about");
  const PAGE = 50;
  const plain = (n) => n.toLocaleString("en-US");
  const exact = (n, digits) => (about.whole ? plain(n) : n.toFixed(digits));

  function make(tag, text, attributes = {}) {
    const element = document.createElement(tag);
    if (text !== undefined) element.textContent = text;
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    return element;
  }

  // As visible.py: what would reorder or hide text is shown as a sign.
  const HIDDEN = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u00ad\u061c\u115f\u1160\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\u3164\ufeff\uffa0\ufff9-\ufffb\u{e0000}-\u{e007f}]/gu;
  function visible(text) {
    const sign = (char) => `[U+${char.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}]`;
    return text.replace(HIDDEN, sign);
  }

  async function unpack(id) {
    const binary = atob($(id).textContent.trim());
    const bytes = Uint8Array.from(binary, (char) => char.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
    return new Response(stream).text();
  }

  let data, texts, order = [], shown = [], start = 0, sort = { key: "row", down: false }, open = -1;

  const snippet = (row) => {
    const turns = texts.get(row);
    if (!turns) return null;
    const first = turns.find(([role]) => role === "user") ?? turns[0];
    return visible((first ? first[1] : "").slice(0, 240).replace(/\s+/g, " "));
  };
  const cluster = (i) => (data.cluster[i] < 0 ? "–" : about.clusters[data.cluster[i]] ?? String(data.cluster[i]));
  const group = (i) => (data.group[i] < 0 ? "–" : visible(about.groups[data.group[i]]));
  const reason = (i) => about.reasons[data.reason[i]]?.name.replaceAll("_", " ") ?? "";

  function why(i) {
    const [eligible, kept] = about.strata[data.stratum[i]] ?? [0, 0];
    const places = [];
    if (about.by.includes("cluster")) places.push(`its cluster (${cluster(i)})`);
    if (about.by.includes("group")) places.push(`its group (${group(i)})`);
    const place = places.length ? ` in ${places.join(" and ")}` : "";
    const of = about.bins ? "its bin of FlexRand" : `${plain(eligible)} eligible records${place}`;
    const number = `number ${plain(data.rank[i] + 1)} of ${of}, ${about.order}`;
    const quota = places.length ? `the quota there is ${plain(kept)}` : `${plain(kept)} are kept`;
    if (data.kept[i]) return `Kept: it is ${number}; ${quota}.`;
    const known = about.reasons[data.reason[i]];
    const words = known ? known.words || known.name.replaceAll("_", " ") : "the reason is not recorded";
    return data.rank[i] < 0 ? `Not kept: ${words}.` : `Not kept: ${words}. It is ${number}; ${quota}.`;
  }

  // --- the list

  function value(id) {
    return $(id)?.value ?? "";
  }
  function range(low, high) {
    const from = value(low) === "" ? null : Number(value(low));
    const to = value(high) === "" ? null : Number(value(high));
    return (n) => (from === null || (n !== null && n >= from)) && (to === null || (n !== null && n <= to));
  }

  function filter() {
    const text = value("f-text").toLowerCase();
    const score = range("f-score-low", "f-score-high"), length = range("f-length-low", "f-length-high");
    const same = (id, column) => (value(id) === "" ? () => true : (i) => String(data[column][i]) === value(id));
    const tests = [
      same("f-kept", "kept"), same("f-reason", "reason"), same("f-cluster", "cluster"), same("f-group", "group"),
      (i) => score(data.score[i]), (i) => length(data.response[i]),
    ];
    if (text) tests.push((i) => texts.get(data.row[i])?.some(([, turn]) => turn.toLowerCase().includes(text)) ?? false);
    shown = order.filter((i) => tests.every((test) => test(i)));
    start = 0;
    draw();
  }

  function arrange() {
    const column = data[sort.key], sign = sort.down ? -1 : 1;
    const named = { cluster, group }[sort.key];
    const keys = named ? data.row.map((_, i) => named(i)) : column;
    const absent = (i) => column[i] === null || (["rank", "cluster", "group"].includes(sort.key) && column[i] < 0);
    order = data.row.map((_, i) => i).sort((a, b) => {
      if (absent(a) !== absent(b)) return absent(a) ? 1 : -1; // what has no value comes last, either way
      if (keys[a] === keys[b]) return a - b;
      return keys[a] < keys[b] ? -sign : sign;
    });
    for (const head of document.querySelectorAll("#records th[data-key]")) {
      if (head.dataset.key === sort.key) head.setAttribute("aria-sort", sort.down ? "descending" : "ascending");
      else head.removeAttribute("aria-sort");
    }
    filter();
  }

  function line(i, place) {
    const row = make("tr");
    const cell = (text, names) => row.append(make("td", text, names ? { class: names } : {}));
    cell(plain(data.row[i]), "n hide soft");
    const button = make("button", snippet(data.row[i]) ?? "text not in this file", { type: "button", dir: "auto", "data-place": place });
    if (!texts.has(data.row[i])) button.className = "absent";
    if (button.textContent === "") button.textContent = "(empty)";
    row.append(make("td"));
    row.lastChild.append(button);
    cell(data.score[i] === null ? "–" : exact(data.score[i], 3), "n");
    cell(plain(data.response[i]), "n");
    cell(cluster(i), "cl hide");
    if ($("f-group")) cell(group(i), "cl hide");
    cell(data.rank[i] < 0 ? "–" : plain(data.rank[i] + 1), "n hide");
    cell(data.kept[i] ? "kept" : reason(i), data.kept[i] ? "yes" : "soft");
    row.addEventListener("click", () => show(place));
    return row;
  }

  function draw() {
    const end = Math.min(start + PAGE, shown.length);
    document.querySelector("#records tbody").replaceChildren(...shown.slice(start, end).map((i, n) => line(i, start + n)));
    const kept = shown.reduce((sum, i) => sum + data.kept[i], 0);
    const searched = value("f-text") && texts.size < data.row.length ? `; searched are the ${plain(texts.size)} texts in this file` : "";
    $("count").textContent = `${plain(shown.length)} of ${plain(data.row.length)} listed records, ${plain(kept)} of them kept${searched}`;
    $("page").textContent = shown.length ? `${plain(start + 1)}–${plain(end)}` : "none";
    $("back").disabled = start === 0;
    $("next").disabled = end >= shown.length;
  }

  // --- one record

  function fact(list, name, text) {
    const pair = make("div");
    pair.append(make("dt", name), make("dd", text));
    list.append(pair);
  }

  function fill(i) {
    const row = data.row[i], body = $("record-body"), facts = make("dl", undefined, { class: "meta" });
    $("record-title").textContent = `Record ${plain(row)}`;
    fact(facts, about.score, data.score[i] === null ? "–" : exact(data.score[i], 4));
    fact(facts, "response tokens", plain(data.response[i]));
    fact(facts, "prompt tokens", plain(data.prompt[i]));
    fact(facts, "cluster", cluster(i));
    if ($("f-group")) fact(facts, "group", group(i));
    body.replaceChildren(make("p", why(i), { class: "why" }), facts);
    for (const [role, text] of texts.get(row) ?? []) {
      const turn = make("div", undefined, { class: "turn" });
      turn.append(make("h3", role), make("p", visible(text), { class: "text", dir: "auto" }));
      body.append(turn);
    }
    if (!texts.has(row)) body.append(make("p", "The text of this record is not in this file.", { class: "absent" }));
    $("record").scrollTop = 0;
  }

  function show(place) {
    open = place;
    fill(shown[place]);
    $("record-back").disabled = place <= 0;
    $("record-next").disabled = place >= shown.length - 1;
    if (!$("record").open) $("record").showModal();
  }

  // A record that the filters hide is shown all the same: the filters give way.
  function showRow(row) {
    let place = shown.findIndex((i) => data.row[i] === row);
    if (place < 0) {
      document.querySelector("#records form").reset();
      filter();
      place = shown.findIndex((i) => data.row[i] === row);
    }
    if (place >= 0) show(place);
  }

  function showCluster(number) {
    document.querySelector("#records form").reset();
    $("f-cluster").value = String(number);
    filter();
    $("browse").scrollIntoView();
  }

  // --- set up

  function options(id, column, name) {
    const select = $(id);
    if (!select) return;
    const counts = new Map();
    for (const code of data[column]) if (code >= 0) counts.set(code, (counts.get(code) ?? 0) + 1);
    const sorted = [...counts].map(([code, count]) => [name(code), code, count]).sort((a, b) => (a[0] < b[0] ? -1 : 1));
    for (const [text, code, count] of sorted) select.append(make("option", `${text} (${plain(count)})`, { value: code }));
  }

  function listen() {
    const form = document.querySelector("#records form");
    form.addEventListener("input", filter);
    form.addEventListener("submit", (event) => event.preventDefault());
    form.addEventListener("reset", () => setTimeout(filter));
    for (const head of document.querySelectorAll("#records th[data-key]")) {
      head.querySelector("button")?.addEventListener("click", () => {
        sort = { key: head.dataset.key, down: sort.key === head.dataset.key && !sort.down };
        arrange();
      });
    }
    const turn = (by) => { start += by; draw(); $("records").scrollIntoView(); };
    $("back").addEventListener("click", () => turn(-PAGE));
    $("next").addEventListener("click", () => turn(PAGE));
    $("record-back").addEventListener("click", () => show(open - 1));
    $("record-next").addEventListener("click", () => show(open + 1));
    $("record-close").addEventListener("click", () => $("record").close());
    $("record").addEventListener("click", (event) => { if (event.target === $("record")) $("record").close(); });
    $("record").addEventListener("keydown", (event) => {
      if (event.key === "ArrowRight" && !$("record-next").disabled) show(open + 1);
      if (event.key === "ArrowLeft" && !$("record-back").disabled) show(open - 1);
    });
  }

  async function charts() {
    const specs = json("figures");
    for (const place of document.querySelectorAll(".chart")) {
      const spec = specs[place.dataset.figure];
      if (!spec) continue;
      if (place.clientWidth < 600) for (const row of spec.data.values) if ("narrow" in row) row.label = row.narrow;
      // The interpreter (ast) is what lets Vega run where the page forbids eval.
      const tooltip = { theme: "custom", disableDefaultStyle: true };
      const embed = { mode: "vega-lite", renderer: "svg", ast: true, actions: false, defaultStyle: false, tooltip };
      const inner = place.appendChild(make("div")); // Vega gives it a role; the outer one keeps its label
      const { view } = await vegaEmbed(inner, spec, embed);
      view.addEventListener("click", (_, item) => {
        const datum = item?.datum;
        if (datum?.row !== undefined) showRow(datum.row);
        else if (datum?.cluster !== undefined) showCluster(datum.cluster);
      });
    }
    document.documentElement.dataset.charts = "ready";
  }

  async function list() {
    data = JSON.parse(await unpack("columns"));
    const lines = (await unpack("texts")).split("\n").filter(Boolean);
    texts = new Map(lines.map((text) => JSON.parse(text)));
    options("f-reason", "reason", (code) => about.reasons[code].name.replaceAll("_", " "));
    options("f-cluster", "cluster", (code) => about.clusters[code] ?? String(code));
    options("f-group", "group", (code) => visible(about.groups[code]));
    listen();
    arrange();
    $("records").hidden = false;
    document.documentElement.dataset.records = "ready";
  }

  charts();
  if ($("records")) list(); // a page about a comparison alone has no records
})();
