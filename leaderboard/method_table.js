// Draws the table of methods. Every text is set as text, so a name cannot bring markup.

const element = (tag, name, text, attributes = {}) => {
  const made = document.createElement(tag);
  if (name) made.className = name;
  if (text !== undefined && text !== null) made.textContent = text;
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
};
const signed = (value) =>
  (Math.abs(value) < 0.05 ? "" : value > 0 ? "+" : "−") + Math.abs(value).toFixed(1);
const verdict = (gain) => (!gain.sure ? "unsure" : gain.gain > 0 ? "better" : "worse");

function bar(gain, scale) {
  const at = (value) => 50 + (50 * Math.max(-scale, Math.min(scale, value))) / scale;
  const made = element("span", `bar ${verdict(gain)}`, null, { "aria-hidden": "true" });
  if (gain.low !== null) {
    const interval = element("span", "interval");
    interval.style.left = `${at(gain.low)}%`;
    interval.style.width = `${Math.max(0.5, at(gain.high) - at(gain.low))}%`;
    made.append(interval);
  }
  const point = element("span", "point");
  point.style.left = `${at(gain.gain)}%`;
  made.append(element("span", "zero"), point);
  return made;
}

function gainCell(gain, label, scale) {
  const cell = element("td", `gain ${scale ? "main" : "other"}`, null, { "data-label": label });
  if (!gain) {
    cell.append(element("span", "none", "–"));
    return cell;
  }
  const interval = gain.low === null ? "" : `${signed(gain.low)} to ${signed(gain.high)}`;
  const number = element("span", `number ${verdict(gain)}`, signed(gain.gain));
  const from = gain.value === null ? "" : `${gain.value.toFixed(1)}, from ${gain.from.toFixed(1)}`;
  const least = gain.resolvable ? `smallest gain to be seen: ${gain.resolvable.toFixed(1)}` : "";
  cell.title = [interval && `95 %: ${interval}`, from, least].filter(Boolean).join("; ");
  cell.append(number);
  if (interval) cell.append(element("span", "ends", interval));
  if (scale) cell.append(bar(gain, scale));
  return cell;
}

function strip(row, columns, scale) {
  const cell = element("td", "strip", null, { "data-label": "languages" });
  if (!row.cells.length) return cell;
  const said = row.cells.map((one) => `${one.language} ${signed(one.gain)}`).join(", ");
  const cells = element("span", "cells", null, { role: "img", "aria-label": said });
  const known = new Map(row.cells.map((one) => [one.unit, one]));
  let before = null;
  for (const column of columns) {
    const one = known.get(column.unit);
    const made = element("i", before !== null && before !== column.group ? "first" : "");
    before = column.group;
    if (one) {
      // What may be noise is pale.
      const share = Math.min(1, Math.abs(one.gain) / scale) * (one.sure || one.low === null ? 1 : 0.5);
      made.style.setProperty("--share", `${Math.round(12 + 88 * share)}%`);
      if (Math.abs(one.gain) >= 0.05) made.classList.add(one.gain > 0 ? "up" : "down");
      if (one.sure) made.classList.add("sure");
      const ends = one.low === null ? "" : ` (${signed(one.low)} to ${signed(one.high)})`;
      made.title = `${one.language} (${one.unit}), ${column.group}: ${signed(one.gain)}${ends}`;
    } else {
      made.classList.add("missing");
      made.title = `${column.language} (${column.unit}): not evaluated`;
    }
    cells.append(made);
  }
  cell.append(cells);
  return cell;
}

function nameCell(row, data, setTriggerValue) {
  const cell = element("th", "name", null, { scope: "row" });
  const line = element("span", "line");
  if (row.id) {
    const pinned = data.pinned.includes(row.id);
    const pin = element("button", "pin", pinned ? "★" : "☆", {
      "aria-pressed": String(pinned),
      "aria-label": `Pin ${row.name}`,
      title: pinned ? "Unpin" : "Pin, to compare on every page",
      "data-focus": `pin ${row.id}`,
    });
    pin.onclick = (event) => {
      event.stopPropagation();
      setTriggerValue("pin", row.id);
    };
    const open = element("button", "open", row.name, {
      "aria-expanded": String(row.id === data.open),
      "data-focus": `open ${row.id}`,
    });
    line.append(pin, open);
  } else {
    line.append(element("span", "printed", row.name));
  }
  cell.append(line);
  if (row.badges.length) {
    const badges = element("span", "badges");
    for (const [text, title] of row.badges) badges.append(element("span", "badge", text, { title }));
    cell.append(badges);
  }
  return cell;
}

function placeCell(row) {
  const cell = element("td", "place", null, { "data-label": "place" });
  if (!row.place) return cell;
  cell.title = row.place.note;
  cell.append(element("span", "at", row.place.place));
  if (row.place.tied > 1) cell.append(element("span", "ends", `${row.place.tied} tied`));
  return cell;
}

function counts(row) {
  const cell = element("td", "counts", null, { "data-label": "up and down" });
  if (!row.cells.length) return cell;
  for (const [name, sign, [all, sure]] of [["up", "▲", row.up], ["down", "▼", row.down]]) {
    const word = name === "up" ? "gain" : "lose";
    const title = `${all} languages ${word}, ${sure} of them significantly`;
    const made = element("span", name, `${sign}${all}`, { title });
    if (sure) made.append(element("b", "", `*${sure}`));
    cell.append(made);
  }
  return cell;
}

function rowOf(row, group, data, setTriggerValue) {
  const made = element("tr", row.id ? "method" : "paper");
  if (row.id === data.open && row.id) made.classList.add("opened");
  if (data.pinned.includes(row.id)) made.classList.add("pinned");
  made.append(nameCell(row, data, setTriggerValue));
  if (data.places) made.append(placeCell(row));
  if (!row.gains[data.main] && row.score !== null) {
    const cell = element("td", "gain main", null, { "data-label": `${data.main} score` });
    cell.append(element("span", "number unsure", row.score.toFixed(1)), element("span", "ends", "score"));
    made.append(cell);
  } else {
    made.append(gainCell(row.gains[data.main], `${data.main} gain`, group.scale));
  }
  for (const split of data.others) made.append(gainCell(row.gains[split], split, null));
  made.append(counts(row));
  made.append(element("td", "items", row.items, { "data-label": "items" }));
  const seeds = element("td", "seeds", row.seeds || "", { "data-label": "seeds" });
  made.append(seeds);
  if (data.retrieval) {
    const cell = element("td", "retrieval", null, { "data-label": "retrieval" });
    if (row.retrieval) {
      cell.append(element("span", "number", row.retrieval.value.toFixed(1)));
      cell.append(element("span", "ends", row.retrieval.note));
    }
    made.append(cell);
  }
  made.append(strip(row, data.columns, group.scale));
  if (row.id) made.onclick = () => setTriggerValue("open", row.id === data.open ? "" : row.id);
  return made;
}

function head(data) {
  const made = element("thead");
  const line = element("tr");
  const titles = [
    ["name", "Method"], ...(data.places ? [["place", "Place"]] : []), ["gain main", `${data.main} gain, 95 %`],
    ...data.others.map((split) => ["gain other", split]),
    ["counts", "Up, down"], ["items", "Items"], ["seeds", "Seeds"],
    ...(data.retrieval ? [["retrieval", "Retrieval"]] : []), ["strip", `Languages by ${data.by}`],
  ];
  for (const [name, text] of titles) line.append(element("th", name, text, { scope: "col" }));
  made.append(line);
  return [made, titles.length];
}

function draw(root, data, setTriggerValue) {
  const table = element("table");
  table.append(element("caption", "", data.caption));
  const [top, width] = head(data);
  table.append(top);
  for (const group of data.groups) {
    const body = element("tbody");
    const heading = element("tr", "heading");
    const cell = element("th", "", null, { scope: "rowgroup", colspan: width });
    cell.append(element("strong", "", group.title), element("span", "note", group.note));
    if (group.scale) cell.append(element("span", "scale", `bars and cells: ±${group.scale}`));
    heading.append(cell);
    body.append(heading);
    for (const row of group.rows) body.append(rowOf(row, group, data, setTriggerValue));
    table.append(body);
  }
  const focus = root.getRootNode().activeElement?.dataset?.focus;
  root.replaceChildren(table);
  if (focus) root.querySelector(`[data-focus="${CSS.escape(focus)}"]`)?.focus();
}

export default function ({ parentElement, data, setTriggerValue }) {
  draw(parentElement.querySelector(".methods"), data, setTriggerValue);
}
