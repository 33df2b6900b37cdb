"use strict";
(() => {
  const PAGE = 50;
  const START = 160; // characters of a row's text in the table
  const QUIET_KINDS = new Set(["template", "stop", "special", "bos", "eos", "padding"]);
  const root = document.documentElement;
  const at = (id) => document.getElementById(id);
  const number = (value) => value.toLocaleString("en-US");

  function make(name, classes = "", text = "") {
    const element = document.createElement(name);
    if (classes) element.className = classes;
    if (text) element.textContent = text;
    return element;
  }

  // ---- the data ------------------------------------------------------------------------------

  const data = JSON.parse(at("data").textContent);
  const half = data.digits.length / 2;
  const values = new Int16Array(128);
  [...data.digits].forEach((digit, value) => (values[digit.charCodeAt(0)] = value));
  const special = new Set(data.special);
  const rows = data.rows.map(([row, part, source, packed, tokens, runs, spans, codes], index) => {
    let trained = 0;
    for (let i = 1; i < runs.length; i += 2) trained += runs[i];
    const share = tokens ? trained / tokens : 0;
    return { index, row, part: data.parts[part], source, packed, tokens, runs, spans, codes, trained, share };
  });

  /** The ids of a row, as numbers of words. */
  function ranks(row, most = Infinity) {
    const found = [];
    let value = 0;
    for (let i = 0; i < row.packed.length && found.length < most; i++) {
      const digit = values[row.packed.charCodeAt(i)];
      if (digit >= half) value = value * half + digit - half;
      else {
        found.push(value * half + digit);
        value = 0;
      }
    }
    return found;
  }

  // Bytes of a character that was cut into several tokens come as U+DC80 to U+DCFF.
  const BYTES = /[\udc80-\udcff]+/gu;
  const utf8 = new TextDecoder();
  const characters = (bytes) => utf8.decode(Uint8Array.from(bytes, (byte) => byte.charCodeAt(0) & 0xff));
  const mended = (text) => text.replace(BYTES, characters);

  const joined = (found) => mended(found.map((rank) => data.words[rank]).join(""));

  /** The texts of tokens; a character that was cut stands at its first piece, the others are empty. */
  function textsOf(words) {
    const texts = [...words];
    for (let i = 0; i < words.length; i++) {
      if (!/[\udc80-\udcff]$/u.test(words[i])) {
        texts[i] = mended(words[i]);
        continue;
      }
      const first = i;
      while (i + 1 < words.length && /^[\udc80-\udcbf]/u.test(words[i + 1])) texts[++i] = "";
      texts[first] = mended(words.slice(first, i + 1).join(""));
    }
    return texts;
  }

  /** Lower case of the same length, so that places in it are places in the text. */
  function folded(text) {
    const lower = text.toLowerCase();
    if (lower.length === text.length) return lower;
    return Array.from(text, (char) => (char.toLowerCase().length === char.length ? char.toLowerCase() : char)).join("");
  }

  const textOf = (row) => (row.text ??= joined(ranks(row)));
  const foldedOf = (row) => (row.folded ??= folded(textOf(row)));

  // ---- text that shows what is in it ---------------------------------------------------------

  const UNSEEN = /[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff]/g;
  const seen = (text) =>
    text.replace(UNSEEN, (char) =>
      char < " "
        ? String.fromCharCode(0x2400 + char.charCodeAt(0))
        : `[U+${char.charCodeAt(0).toString(16).toUpperCase().padStart(4, "0")}]`,
    );
  const flat = (text) => seen(text.replace(/\n/g, "\u23ce").replace(/\t/g, " "));
  const withSpaces = (text) => text.replace(/ /g, "\u00b7").replace(/\t/g, "\u21e5\t").replace(/\u00a0/g, "\u237d");

  const inHex = (text) =>
    text.replace(BYTES, (bytes) => Array.from(bytes, (byte) => `<${(byte.charCodeAt(0) & 0xff).toString(16).toUpperCase()}>`).join(""));

  function percent(share) {
    if (share > 0 && share < 0.01) return "< 1\u00a0%";
    if (share < 1 && share > 0.99) return "> 99\u00a0%";
    return `${Math.round(share * 100)}\u00a0%`;
  }

  // ---- what is shown -------------------------------------------------------------------------

  const state = { query: "", code: "", part: "", sort: "row", down: false, page: 0, open: null, spaces: false, edges: false };
  let visible = [];
  const body = at("table").tBodies[0];
  const headings = at("table").tHead.rows[0];
  const several = data.parts.length > 1;
  const anySource = rows.some((row) => row.source);
  const anyCode = rows.some((row) => row.codes.length);

  function wanted(row) {
    if (state.code && !row.codes.includes(state.code)) return false;
    if (state.part && row.part !== state.part) return false;
    if (!state.query) return true;
    if (/^#\d+$/.test(state.query)) return row.row === Number(state.query.slice(1));
    return foldedOf(row).includes(state.query);
  }

  function choose() {
    visible = rows.filter(wanted);
    const key = (row) => row[state.sort];
    const way = state.down ? -1 : 1;
    visible.sort((a, b) => way * (key(a) - key(b)) || a.row - b.row || a.index - b.index);
    state.page = 0;
    state.open = null;
    hideTip();
  }

  function draw() {
    const pages = Math.max(1, Math.ceil(visible.length / PAGE));
    state.page = Math.min(state.page, pages - 1);
    const from = state.page * PAGE;
    const part = visible.slice(from, from + PAGE);
    body.replaceChildren(...part.map(line));
    const open = part.find((row) => row.index === state.open);
    if (open) unfold(open);
    at("matches").textContent =
      visible.length === rows.length
        ? `${number(rows.length)} ${several ? "sequences" : rows.length === 1 ? "row" : "rows"}`
        : `${number(visible.length)} of ${number(rows.length)} match`;
    at("place").textContent = visible.length
      ? `${number(from + 1)}\u2013${number(from + part.length)} of ${number(visible.length)}`
      : "none";
    at("previous").disabled = state.page === 0;
    at("next").disabled = state.page >= pages - 1;
    for (const button of headings.querySelectorAll("button")) {
      const heading = button.parentElement;
      if (button.dataset.sort === state.sort) heading.setAttribute("aria-sort", state.down ? "descending" : "ascending");
      else heading.removeAttribute("aria-sort");
    }
  }

  function cell(classes, content, title = "") {
    const element = make("td", classes);
    element.append(content);
    if (title) element.title = title;
    return element;
  }

  function line(row) {
    const element = make("tr", "row");
    element.dataset.index = row.index;
    const opener = make("button", "opener", String(row.row));
    opener.type = "button";
    opener.setAttribute("aria-expanded", "false");
    opener.setAttribute("aria-label", `Row ${row.row}${row.part ? `, ${row.part}` : ""}`);
    element.append(cell("of-row number", opener));
    if (several) element.append(cell("of-part", row.part));
    if (anySource) element.append(cell("of-source", seen(row.source ?? "unknown"), seen(row.source ?? "")));
    element.append(cell("of-tokens number", number(row.tokens)))
    element.append(cell("of-trained number", number(row.trained)), cell("of-share", strip(row)));
    if (anyCode) element.append(cell("of-codes", firstChip(row.codes)));
    element.append(cell("of-text start", begin(row)));
    return element;
  }

  /** A bar of the whole row in which the trained parts are filled. */
  function strip(row) {
    const fragment = document.createDocumentFragment();
    const bar = make("span", "strip");
    const stops = [];
    for (let i = 0; i < Math.min(row.runs.length, 80); i += 2) {
      const from = ((100 * row.runs[i]) / row.tokens).toFixed(2);
      const to = ((100 * (row.runs[i] + row.runs[i + 1])) / row.tokens).toFixed(2);
      stops.push(`transparent ${from}%`, `var(--on-line) ${from}% ${to}%`, `transparent ${to}%`);
    }
    if (stops.length) bar.style.background = `linear-gradient(to right, ${stops.join(", ")})`;
    bar.setAttribute("aria-hidden", "true");
    fragment.append(bar, percent(row.share));
    return fragment;
  }

  function chips(codes) {
    const fragment = document.createDocumentFragment();
    for (const code of codes) {
      const chip = make("span", `chip ${data.levels[code] ?? "note"}`, code);
      chip.title = data.messages[code] ?? "";
      fragment.append(chip);
    }
    return fragment;
  }

  /** The table has room for one code; the open row names all of them. */
  function firstChip(codes) {
    const fragment = chips(codes.slice(0, 1));
    if (codes.length > 1) {
      const more = make("span", "more", `+${codes.length - 1}`);
      more.title = codes.slice(1).join(", ");
      fragment.append(more);
    }
    return fragment;
  }

  /** The first token that tells rows apart: most begin with the same template and system prompt. */
  function firstContent(row) {
    for (let i = 0; i < row.spans.length; i += 3) {
      const kind = data.kinds[row.spans[i + 2]];
      if (!QUIET_KINDS.has(kind) && kind !== "system") return row.spans[i];
    }
    return row.spans.length ? 0 : sharedStart(row);
  }

  /** How many tokens a row shares with the start of another one. */
  function sharedStart(row) {
    const other = rows.find((one) => one.row !== row.row);
    if (!other) return 0;
    let same = 0;
    while (same < row.packed.length && row.packed[same] === other.packed[same]) same++;
    const shared = ranks({ packed: row.packed.slice(0, same) }).length;
    return shared > row.tokens * 0.9 ? 0 : shared;
  }

  /** The start of a row's text, or what is around the first match. */
  function begin(row) {
    const place = state.query && !state.query.startsWith("#") ? foldedOf(row).indexOf(state.query) : -1;
    if (place < 0) {
      const from = firstContent(row);
      return flat(joined(ranks(row, from + START).slice(from)).slice(0, START));
    }
    const text = textOf(row);
    const end = place + state.query.length;
    const fragment = document.createDocumentFragment();
    const before = Math.max(0, place - 24);
    fragment.append(
      (before ? "\u2026" : "") + flat(text.slice(before, place)),
      make("mark", "hit", flat(text.slice(place, end))),
      flat(text.slice(end, end + START)),
    );
    return fragment;
  }

  // ---- an open row ---------------------------------------------------------------------------

  const lineOf = (row) => body.querySelector(`tr.row[data-index="${row.index}"]`);

  function unfold(row) {
    const element = lineOf(row);
    element.classList.add("open");
    const opener = element.querySelector(".opener");
    opener.setAttribute("aria-expanded", "true");
    opener.setAttribute("aria-controls", "panel");
    const panel = make("td", "panel");
    panel.id = "panel";
    panel.colSpan = shownColumns();
    panel.append(panelHead(row), panelFindings(row), tokensOf(row));
    const holder = make("tr");
    holder.append(panel);
    element.after(holder);
  }

  /** Narrow screens show fewer columns. */
  const shownColumns = () => [...headings.cells].filter((heading) => heading.offsetParent).length;

  function fold() {
    body.querySelector("#panel")?.parentElement.remove();
    const element = body.querySelector("tr.open");
    element?.classList.remove("open");
    element?.querySelector(".opener").setAttribute("aria-expanded", "false");
    hideTip();
  }

  function panelHead(row) {
    const head = make("header");
    const title = make("p");
    title.append(
      make("b", "", `Row ${row.row}${row.part ? `, ${row.part}` : ""}`),
      `: ${number(row.tokens)} tokens, ${number(row.trained)} trained` + (row.source ? `, from ${seen(row.source)}` : ""),
    );
    const close = make("button", "close", "Close");
    close.type = "button";
    head.append(title, option("spaces", "Show spaces"), option("edges", "Token edges"), close);
    return head;
  }

  function option(name, text) {
    const label = make("label");
    const box = make("input");
    box.type = "checkbox";
    box.checked = state[name];
    box.dataset.option = name;
    label.append(box, text);
    return label;
  }

  function panelFindings(row) {
    const list = make("ul");
    for (const code of row.codes) {
      const item = make("li");
      const link = make("a", "", seen(data.messages[code] ?? "see above"));
      link.href = `#${code}`;
      item.append(chips([code]), link);
      list.append(item);
    }
    return list.childElementCount ? list : "";
  }

  /** What is known of each token of a row. */
  function detailed(row) {
    const found = ranks(row);
    const texts = textsOf(found.map((rank) => data.words[rank]));
    const tokens = found.map((rank, i) => ({ rank, word: texts[i], on: false, span: null }));
    for (let i = 0; i < row.runs.length; i += 2)
      for (let j = row.runs[i]; j < row.runs[i] + row.runs[i + 1] && j < tokens.length; j++) tokens[j].on = true;
    for (let i = 0; i < row.spans.length; i += 3) {
      const span = { start: row.spans[i], end: row.spans[i + 1], kind: data.kinds[row.spans[i + 2]] };
      for (let j = span.start; j < span.end && j < tokens.length; j++) tokens[j].span = span;
    }
    for (const [number_, part, token] of data.marks)
      if (number_ === row.row && part === row.part && tokens[token]) tokens[token].found = true;
    markHits(tokens);
    return tokens;
  }

  function markHits(tokens) {
    if (!state.query || state.query.startsWith("#")) return;
    const text = folded(tokens.map((token) => token.word).join(""));
    const starts = [];
    let length = 0;
    for (const token of tokens) {
      starts.push(length);
      length += token.word.length;
    }
    let token = 0;
    for (let place = text.indexOf(state.query); place >= 0; place = text.indexOf(state.query, place + state.query.length)) {
      const end = place + state.query.length;
      while (token + 1 < tokens.length && starts[token + 1] <= place) token++;
      for (let i = token; i < tokens.length && starts[i] < end; i++) tokens[i].hit = true;
    }
  }

  function tokensOf(row) {
    const box = make("div", state.edges ? "tokens edges" : "tokens");
    box.setAttribute("role", "group");
    box.setAttribute("aria-label", `Tokens of row ${row.row}`);
    const tokens = detailed(row);
    tokens.forEach((token, place) => {
      if (token.span?.start === place && !QUIET_KINDS.has(token.span.kind))
        box.append(make("span", token.on ? "role on-role" : "role", seen(token.span.kind)));
      box.append(tokenElement(token, place));
    });
    box.tokens = tokens;
    box.row = row;
    if (box.querySelector(".t")) box.querySelector(".t").tabIndex = 0;
    return box;
  }

  function tokenElement(token, place) {
    const isSpecial = special.has(token.rank) || token.span?.kind === "stop";
    const names = ["t", token.on && "on", isSpecial && "box", token.found && "found", token.hit && "hit", !token.word && "piece"];
    const element = make("span", names.filter(Boolean).join(" "));
    element.dataset.at = place;
    element.tabIndex = -1;
    const pieces = seen(token.word).split("\n");
    pieces.forEach((piece, i) => {
      if (i) element.append(make("i", "mark", "\u23ce"), "\n");
      if (piece) element.append(state.spaces ? withSpaces(piece) : piece);
    });
    return element;
  }

  // ---- what is under the pointer -------------------------------------------------------------

  const tip = at("tip");

  function showTip(element) {
    const box = element.closest(".tokens");
    const place = Number(element.dataset.at);
    const token = box.tokens[place];
    const id = data.ids[token.rank];
    const facts = [
      ["token", withSpaces(seen(inHex(data.words[token.rank])).replace(/\n/g, "\u23ce")) || "(empty)"],
      ["id", String(id)],
      ["label", token.on ? `${id} (trained)` : "-100 (masked)"],
      ["position", `${number(place)} of ${number(box.tokens.length)}`],
    ];
    if (token.span) facts.push(["span", `${token.span.kind}, tokens ${token.span.start}\u2013${token.span.end - 1}`]);
    if (box.row.source) facts.push(["source", seen(box.row.source)]);
    const list = make("dl");
    for (const [name, value] of facts) list.append(make("dt", "", name), make("dd", "", value));
    tip.replaceChildren(list);
    tip.hidden = false;
    for (const other of box.querySelectorAll("[aria-describedby]")) other.removeAttribute("aria-describedby");
    element.setAttribute("aria-describedby", "tip");
    const spot = element.getClientRects()[0] ?? element.getBoundingClientRect();
    const below = spot.bottom + 8 + tip.offsetHeight < innerHeight;
    tip.style.top = `${below ? spot.bottom + 8 : Math.max(4, spot.top - 8 - tip.offsetHeight)}px`;
    tip.style.left = `${Math.max(8, Math.min(spot.left, innerWidth - tip.offsetWidth - 8))}px`;
  }

  function hideTip() {
    tip.hidden = true;
  }

  body.addEventListener("mouseover", (event) => {
    const token = event.target.closest("[data-at]");
    if (token) showTip(token);
    else hideTip();
  });
  body.addEventListener("mouseleave", hideTip);
  body.addEventListener("focusin", (event) => {
    if (event.target.matches("[data-at]")) showTip(event.target);
    else hideTip();
  });
  /** After everything moved: the token that has the focus keeps its tip. */
  function moveTip() {
    if (tip.hidden) return;
    if (document.activeElement.matches("[data-at]")) showTip(document.activeElement);
    else hideTip();
  }
  addEventListener("scroll", moveTip, { passive: true });
  addEventListener("resize", () => {
    moveTip();
    if (at("panel")) at("panel").colSpan = shownColumns();
  });

  function moveToken(from, step) {
    const to = from.closest(".tokens").querySelector(`[data-at="${Number(from.dataset.at) + step}"]`);
    if (!to) return;
    from.tabIndex = -1;
    to.tabIndex = 0;
    to.focus();
  }

  // ---- opening and moving --------------------------------------------------------------------

  function address(row) {
    return row ? `#row=${row.row}${row.part ? `&part=${encodeURIComponent(row.part)}` : ""}` : location.pathname;
  }

  function open(row, token = null) {
    const before = lineOf(row)?.getBoundingClientRect().top ?? -1;
    fold();
    state.open = row.index;
    const place = visible.indexOf(row);
    const page = Math.floor(place / PAGE);
    if (page !== state.page || !lineOf(row)) {
      state.page = page;
      draw();
    } else unfold(row);
    history.replaceState(null, "", address(row));
    const target = token === null ? null : body.querySelector(`.tokens [data-at="${token}"]`);
    if (target) {
      target.tabIndex = 0;
      target.focus({ preventScroll: true });
      target.scrollIntoView({ block: "center", behavior: "instant" });
      showTip(target);
      return;
    }
    focusRow(row, before);
  }

  /** Moves to a row; one that was in sight, at `before`, stays where it is. */
  function focusRow(row, before = -1) {
    const element = lineOf(row);
    element.querySelector(".opener").focus({ preventScroll: true });
    if (before >= 0 && before < innerHeight * 0.7)
      scrollBy({ top: element.getBoundingClientRect().top - before, behavior: "instant" });
    else element.scrollIntoView({ block: state.open === row.index ? "start" : "nearest", behavior: "instant" });
  }

  function close() {
    const row = rows[state.open];
    const before = row && lineOf(row) ? lineOf(row).getBoundingClientRect().top : -1;
    state.open = null;
    fold();
    history.replaceState(null, "", address(null));
    if (row && lineOf(row)) focusRow(row, before);
  }

  function toggle(row) {
    if (state.open === row.index) close();
    else open(row);
  }

  /** Opens what the address names, with all filters off if they hide it. */
  function follow() {
    const wish = new URLSearchParams(location.hash.slice(1));
    if (!wish.has("row")) return;
    const fits = (row) => row.row === Number(wish.get("row")) && (!wish.has("part") || row.part === wish.get("part"));
    const row = rows.find(fits);
    if (!row) {
      at("matches").textContent = `Row ${wish.get("row")} is not in this page.`;
      return;
    }
    if (!visible.includes(row)) reset();
    open(row, wish.has("token") ? Number(wish.get("token")) : null);
  }

  function reset() {
    state.query = state.code = state.part = "";
    at("query").value = at("code").value = at("part").value = "";
    choose();
    draw();
  }

  function step(way) {
    const focused = document.activeElement.closest?.("tr.row");
    const current = state.open ?? (focused ? Number(focused.dataset.index) : null);
    let place = current === null ? state.page * PAGE - (way > 0 ? 1 : 0) : visible.indexOf(rows[current]);
    place = Math.max(0, Math.min(visible.length - 1, place + way));
    const row = visible[place];
    if (!row) return;
    if (state.open !== null) {
      open(row);
      return;
    }
    const page = Math.floor(place / PAGE);
    if (page !== state.page) {
      state.page = page;
      draw();
    }
    focusRow(row);
  }

  function turn(way) {
    if (state.open !== null) close();
    state.page += way;
    draw();
    at("table").scrollIntoView({ block: "start", behavior: "instant" });
  }

  // ---- events --------------------------------------------------------------------------------

  let waiting = 0;
  at("query").addEventListener("input", () => {
    clearTimeout(waiting);
    waiting = setTimeout(() => {
      state.query = folded(at("query").value);
      choose();
      draw();
    }, 150);
  });
  for (const name of ["code", "part"])
    at(name).addEventListener("change", () => {
      state[name] = at(name).value;
      choose();
      draw();
    });
  at("tools").addEventListener("submit", (event) => event.preventDefault());
  at("previous").addEventListener("click", () => turn(-1));
  at("next").addEventListener("click", () => turn(1));

  headings.addEventListener("click", (event) => {
    const sort = event.target.closest("button")?.dataset.sort;
    if (!sort) return;
    state.down = state.sort === sort ? !state.down : sort !== "row";
    state.sort = sort;
    choose();
    draw();
  });

  body.addEventListener("click", (event) => {
    const token = event.target.closest("[data-at]");
    if (token) {
      token.focus({ preventScroll: true });
      showTip(token);
    } else if (event.target.closest(".close")) close();
    else if (!event.target.closest(".panel")) {
      const element = event.target.closest("tr.row");
      if (element && !String(getSelection())) toggle(rows[Number(element.dataset.index)]);
    }
  });
  body.addEventListener("change", (event) => {
    const name = event.target.dataset.option;
    if (!name) return;
    state[name] = event.target.checked;
    const row = rows[state.open];
    body.querySelector(".tokens").replaceWith(tokensOf(row));
  });

  document.addEventListener("click", (event) => {
    const link = event.target.closest('a[href^="#row="]');
    const show = event.target.closest(".show");
    const copy = event.target.closest(".copy");
    if (link && link.hash === location.hash) follow();
    if (show) {
      reset();
      state.code = at("code").value = show.dataset.show;
      choose();
      draw();
      at("rows").scrollIntoView();
    }
    if (copy) copyText(copy);
  });

  async function copyText(button) {
    try {
      await navigator.clipboard.writeText(button.dataset.copy);
    } catch {
      getSelection().selectAllChildren(button.previousElementSibling);
      document.execCommand("copy");
    }
    button.textContent = "Copied";
    setTimeout(() => (button.textContent = "Copy"), 1500);
  }

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const target = event.target;
    if (target.matches("input[type=search], select")) {
      if (event.key === "Escape") target.blur();
      return;
    }
    const onToken = target.matches("[data-at]");
    const onRow = target.matches(".opener");
    if (event.key === "/") at("query").focus();
    else if (event.key === "Escape" && state.open !== null) close();
    else if (event.key === "j" || (event.key === "ArrowDown" && onRow)) step(1);
    else if (event.key === "k" || (event.key === "ArrowUp" && onRow)) step(-1);
    else if (event.key === "ArrowRight" && onToken) moveToken(target, 1);
    else if (event.key === "ArrowLeft" && onToken) moveToken(target, -1);
    else return;
    event.preventDefault();
  });
  addEventListener("hashchange", follow);

  // ---- light and dark ------------------------------------------------------------------------

  const system = matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : system.matches);

  function tellTheme() {
    at("theme").textContent = isDark() ? "Light" : "Dark";
    at("theme").setAttribute("aria-pressed", String(isDark()));
    at("theme").setAttribute("aria-label", "Dark colours");
  }

  at("theme").addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    tellTheme();
  });
  system.addEventListener("change", tellTheme);

  // ---- start ---------------------------------------------------------------------------------

  function fill(select, names) {
    for (const name of names) {
      const choice = make("option", "", seen(name));
      choice.value = name;
      select.append(choice);
    }
  }

  /** The texts that the search needs, a few rows at a time while nothing else is to do. */
  function prepare(from = 0) {
    const until = performance.now() + 12;
    let row = from;
    while (row < rows.length && performance.now() < until) foldedOf(rows[row++]);
    if (row < rows.length) setTimeout(prepare, 8, row);
  }

  root.classList.add("script");
  fill(at("code"), [...new Set(rows.flatMap((row) => row.codes))].sort());
  fill(at("part"), data.parts.filter(Boolean));
  at("pieces").hidden = !data.words.some((word) => /[\udc80-\udcff]/u.test(word));
  at("part-label").hidden = !several;
  at("code-label").hidden = !anyCode;
  if (!several) headings.querySelector(".of-part").remove();
  if (!anySource) headings.querySelector(".of-source").remove();
  if (!anyCode) headings.querySelector(".of-codes").remove();
  tellTheme();
  choose();
  draw();
  follow();
  setTimeout(prepare, 200);
})();
