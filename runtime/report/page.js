"use strict";
(() => {
  const SVG = "http://www.w3.org/2000/svg";
  const COLOURS = ["#2f81f7", "#e8710a", "#2da44e", "#d1495b", "#a371f7", "#b58900", "#0aa2c0",
                   "#d167b0", "#7d8590", "#8a6d3b"];
  const HEIGHT = 250, LEFT = 58, RIGHT = 18, TOP = 10, BOTTOM = 36;

  function make(parent, name, attributes, text) {
    const node = parent instanceof SVGElement || name === "svg"
      ? document.createElementNS(SVG, name) : document.createElement(name);
    for (const key in attributes) node.setAttribute(key, attributes[key]);
    if (text !== undefined) node.textContent = text;
    parent.appendChild(node);
    return node;
  }

  function short(value) {
    if (value === null || value === undefined) return "–";
    const size = Math.abs(value);
    const digits = Number(value.toPrecision(4));
    return size !== 0 && (size < 1e-3 || size >= 1e6) ? digits.toExponential() : String(digits);
  }

  function counted(value) {
    for (const [size, letter] of [[1e6, "M"], [1e3, "k"]]) {
      if (value >= 10 * size || value % size === 0 && value) return value / size + letter;
    }
    return String(value);
  }

  function ticks(low, high, count) {
    const rough = (high - low) / count, power = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 5, 10].map((times) => times * power).find((each) => each >= rough * 0.999);
    const found = [];
    for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; i++) {
      found.push(Number((i * step).toPrecision(12)));
    }
    return found;
  }

  function logTicks(low, high) {
    const found = [];
    for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power++) {
      for (const times of high / low > 200 ? [1] : [1, 2, 5]) {
        const value = times * 10 ** power;
        if (value >= low * 0.999 && value <= high * 1.001) found.push(Number(value.toPrecision(3)));
      }
    }
    return found.length > 1 ? found : [low, high];
  }

  function runningMean(values, window) {
    const sums = [0], counts = [0];
    values.forEach((value, i) => {
      sums.push(sums[i] + (value === null ? 0 : value));
      counts.push(counts[i] + (value === null ? 0 : 1));
    });
    return values.map((value, i) => {
      const from = Math.max(0, i - window), to = Math.min(values.length, i + window + 1);
      const count = counts[to] - counts[from];
      return value === null || !count ? null : (sums[to] - sums[from]) / count;
    });
  }

  class Chart {
    constructor(place, spec) {
      this.place = place;
      this.spec = spec;
      this.isLog = false;
      this.at = null;
      this.series = spec.series.map((each, i) => ({
        ...each, low: each.low || each.y, high: each.high || each.y, isThinned: Boolean(each.low),
        x1: each.x1 || each.x, colour: COLOURS[i % COLOURS.length],
      }));
      this.svg = make(place, "svg", {role: "img", tabindex: 0, "aria-label": place.dataset.label});
      this.tip = make(place, "div", {class: "tip", role: "status"});
      this.tip.hidden = true;
      this.legend = make(place, "div", {class: "legend"});
      this.addLegend();
      this.svg.addEventListener("pointermove", (event) => this.point(event.clientX));
      this.svg.addEventListener("pointerdown", (event) => this.point(event.clientX));
      this.svg.addEventListener("pointerleave", () => this.leave());
      this.svg.addEventListener("blur", () => this.leave());
      this.svg.addEventListener("keydown", (event) => this.key(event));
      if (spec.log && this.positive()) this.isLog = true;
      new ResizeObserver(() => this.draw()).observe(place);
      this.draw();
    }

    addLegend() {
      this.series.forEach((each) => {
        const button = make(this.legend, "button", {type: "button", "aria-pressed": !each.hidden});
        make(button, "i", {}).style.background = each.colour;
        button.append(each.name);
        button.addEventListener("click", () => {
          each.hidden = !each.hidden;
          button.setAttribute("aria-pressed", !each.hidden);
          this.draw();
        });
      });
      if (!this.spec.log) return;
      const scale = make(this.legend, "button", {type: "button", class: "scale"}, "log / linear");
      scale.addEventListener("click", () => { this.isLog = !this.isLog; this.draw(); });
    }

    visible() { return this.series.filter((each) => !each.hidden); }

    positive() {
      return this.visible().some((each) => each.y.some((value) => value !== null && value > 0));
    }

    scales() {
      const xs = this.series.flatMap((each) => [each.x[0], each.x1[each.x1.length - 1]]);
      let [x0, x1] = [Math.min(...xs), Math.max(...xs)];
      if (x0 === x1) [x0, x1] = [x0 - 1, x1 + 1];
      let y0 = Infinity, y1 = -Infinity;
      for (const each of this.visible()) {
        each.y.forEach((value, i) => {
          for (const end of [each.low[i], each.high[i]]) {
            if (end === null || (this.isLog && end <= 0)) continue;
            y0 = Math.min(y0, end);
            y1 = Math.max(y1, end);
          }
        });
      }
      if (y0 > y1) [y0, y1] = [this.isLog ? 0.1 : 0, 1];
      const margin = y1 > y0 ? (y1 - y0) * 0.04 : Math.abs(y1) * 0.1 || 1;
      if (this.isLog) [y0, y1] = y1 > y0 ? [y0 / 1.05, y1 * 1.05] : [y0 / 2, y1 * 2];
      else [y0, y1] = [y0 >= 0 && y0 < margin * 8 ? 0 : y0 - margin, y1 + margin];
      const map = (value) => this.isLog ? Math.log(value) : value;
      const width = Math.max(200, this.place.clientWidth) - LEFT - RIGHT;
      const height = HEIGHT - TOP - BOTTOM;
      this.x = (value) => LEFT + (value - x0) / (x1 - x0) * width;
      this.y = (value) => TOP + (1 - (map(value) - map(y0)) / (map(y1) - map(y0))) * height;
      return {x0, x1, y0, y1, width};
    }

    draw() {
      const {x0, x1, y0, y1, width} = this.scales(), svg = this.svg;
      svg.textContent = "";
      svg.setAttribute("viewBox", `0 0 ${width + LEFT + RIGHT} ${HEIGHT}`);
      svg.setAttribute("height", HEIGHT);
      for (const value of this.isLog ? logTicks(y0, y1) : ticks(y0, y1, 5)) {
        const y = this.y(value);
        make(svg, "line", {class: "grid", x1: LEFT, x2: LEFT + width, y1: y, y2: y});
        make(svg, "text", {x: LEFT - 6, y: y + 4, "text-anchor": "end"}, short(value));
      }
      for (const value of ticks(x0, x1, Math.max(2, width / 90))) {
        if (!Number.isInteger(value)) continue;
        make(svg, "text", {x: this.x(value), y: HEIGHT - BOTTOM + 15, "text-anchor": "middle"},
             counted(value));
      }
      make(svg, "text", {x: LEFT + width / 2, y: HEIGHT - 4, "text-anchor": "middle"}, "iteration");
      make(svg, "line", {class: "axis", x1: LEFT, x2: LEFT + width, y1: HEIGHT - BOTTOM,
                         y2: HEIGHT - BOTTOM});
      for (const each of this.visible()) this.line(each);
      this.cursor = make(svg, "g", {});
      if (this.at !== null) this.show(this.at);
    }

    line(each) {
      const window = this.spec.smooth ? Math.floor(each.y.length / 50) : 0;
      if (each.isThinned) this.band(each);
      if (window > 1) {
        if (!each.isThinned) this.path(each.x, each.y, each.colour, 0.25, 1);
        this.path(each.x, runningMean(each.y, window), each.colour, 1, 1.8);
      } else {
        this.path(each.x, each.y, each.colour, 1, 1.8);
      }
      const marked = each.y.filter((value) => value !== null).length;
      if (marked > 40 || (this.spec.smooth && marked > 1)) return;
      each.y.forEach((value, i) => {
        if (value !== null && (!this.isLog || value > 0)) {
          make(this.svg, "circle", {cx: this.x(each.x[i]), cy: this.y(value), r: 2.6,
                                    fill: each.colour});
        }
      });
    }

    path(xs, ys, colour, opacity, width) {
      let text = "", pen = "M";
      ys.forEach((value, i) => {
        if (value === null || (this.isLog && value <= 0)) { pen = "M"; return; }
        text += `${pen}${this.x(xs[i]).toFixed(1)} ${this.y(value).toFixed(1)}`;
        pen = "L";
      });
      make(this.svg, "path", {d: text, fill: "none", stroke: colour, "stroke-width": width,
                              "stroke-opacity": opacity, "stroke-linejoin": "round"});
    }

    band(each) {
      let text = "";
      each.y.forEach((value, i) => {
        const [low, high] = [each.low[i], each.high[i]];
        if (value === null || (this.isLog && low <= 0)) return;
        const x = this.x(each.x[i]).toFixed(1);
        text += `M${x} ${this.y(low).toFixed(1)}L${x} ${this.y(high).toFixed(1)}`;
      });
      make(this.svg, "path", {d: text, stroke: each.colour, "stroke-opacity": 0.22,
                              "stroke-width": 1.2, fill: "none"});
    }

    positions() {
      const longest = this.visible().reduce(
        (best, each) => each.x.length > best.length ? each.x : best, []);
      return longest;
    }

    point(clientX) {
      const box = this.svg.getBoundingClientRect();
      const inside = clientX - box.left, xs = this.positions();
      if (!xs.length) return;
      let best = 0;
      for (let i = 1; i < xs.length; i++) {
        if (Math.abs(this.x(xs[i]) - inside) < Math.abs(this.x(xs[best]) - inside)) best = i;
      }
      this.show(best);
    }

    key(event) {
      const last = this.positions().length - 1;
      const step = {ArrowLeft: -1, ArrowRight: 1, PageUp: -20, PageDown: 20}[event.key];
      if (event.key === "Escape") { this.leave(); return; }
      if (step === undefined && event.key !== "Home" && event.key !== "End") return;
      if (last < 0) return;
      event.preventDefault();
      const from = this.at === null ? last + (step > 0 ? -step : 1) : this.at;
      const to = event.key === "Home" ? 0 : event.key === "End" ? last : from + step;
      this.show(Math.min(last, Math.max(0, to)));
    }

    show(index) {
      const xs = this.positions();
      if (index >= xs.length) { this.leave(); return; }
      const at = xs[index], x = this.x(at);
      this.at = index;
      this.cursor.textContent = "";
      this.tip.textContent = "";
      make(this.cursor, "line", {class: "cursor", x1: x, x2: x, y1: TOP, y2: HEIGHT - BOTTOM});
      let head = `iteration ${at}`;
      this.visible().forEach((each) => {
        const i = nearest(each.x, at);
        if (each.y[i] === null) return;
        const row = make(this.tip, "div", {});
        make(row, "i", {}).style.background = each.colour;
        let text = `${each.name} ${short(each.y[i])}`;
        if (each.low[i] !== each.high[i]) {
          text += ` (${short(each.low[i])} to ${short(each.high[i])})`;
          if (each.x1[i] > each.x[i]) head = `iterations ${at} to ${each.x1[i]}`;
        }
        if (each.x[i] !== at) text += ` at ${each.x[i]}`;
        row.append(text);
        if (!this.isLog || each.y[i] > 0) {
          make(this.cursor, "circle", {cx: this.x(each.x[i]), cy: this.y(each.y[i]), r: 3.5,
                                       fill: each.colour});
        }
      });
      const title = document.createElement("strong");
      title.textContent = head;
      this.tip.prepend(title);
      this.tip.hidden = false;
      const room = this.place.clientWidth, isRight = x > room / 2;
      this.tip.style.left = isRight ? "auto" : `${x + 12}px`;
      this.tip.style.right = isRight ? `${room - x + 12}px` : "auto";
    }

    leave() {
      this.at = null;
      this.tip.hidden = true;
      this.cursor.textContent = "";
    }
  }

  function nearest(xs, at) {
    let low = 0, high = xs.length - 1;
    while (high - low > 1) {
      const middle = (low + high) >> 1;
      if (xs[middle] <= at) low = middle; else high = middle;
    }
    return Math.abs(xs[high] - at) < Math.abs(xs[low] - at) ? high : low;
  }

  function copy(button) {
    const code = button.parentNode.querySelector("code");
    const say = (text) => {
      button.textContent = text;
      setTimeout(() => { button.textContent = "Copy"; }, 1500);
    };
    const select = () => {  // where a page from the disk may not use the clipboard
      const range = document.createRange(), selection = getSelection();
      range.selectNodeContents(code);
      selection.removeAllRanges();
      selection.addRange(range);
      say(document.execCommand("copy") ? "Copied" : "Press Ctrl-C");
    };
    if (!navigator.clipboard) { select(); return; }
    navigator.clipboard.writeText(code.textContent).then(() => say("Copied"), select);
  }

  function sort(button) {
    const head = button.closest("th"), table = head.closest("table");
    const column = [...head.parentNode.children].indexOf(head);
    const falls = head.getAttribute("aria-sort") !== "descending" && head.className === "number"
      || head.getAttribute("aria-sort") === "ascending";
    const body = table.tBodies[0];
    const key = (row) => {
      const cell = row.children[column];
      return "value" in cell.dataset ? Number(cell.dataset.value)
        : cell.className === "number" ? NaN : cell.textContent;
    };
    const order = (a, b) => {
      const [x, y] = [key(a), key(b)];
      if (Number.isNaN(x) || Number.isNaN(y)) return Number.isNaN(x) - Number.isNaN(y);
      const sign = typeof x === "number" && typeof y === "number" ? x - y
        : String(x).localeCompare(String(y), undefined, {numeric: true});
      return falls ? -sign : sign;
    };
    [...body.rows].sort(order).forEach((row) => body.appendChild(row));
    for (const each of head.parentNode.children) each.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", falls ? "descending" : "ascending");
  }

  for (const spec of JSON.parse(document.getElementById("charts").textContent)) {
    new Chart(document.getElementById(spec.id), spec);
  }
  for (const button of document.querySelectorAll(".copy")) {
    button.addEventListener("click", () => copy(button));
  }
  for (const button of document.querySelectorAll("table.sorts th button")) {
    button.addEventListener("click", () => sort(button));
  }
  for (const button of document.querySelectorAll(".zoom")) {
    button.addEventListener("click", () => button.classList.toggle("large"));
  }
})();
