// The state that every page has: its size, theme and tooltip, and the reader's choices, which the address stores.

import { clamp, makeStepScale } from "./numbers.js";
import { html } from "./elements.js";

export class BasePage {
  constructor(payload) {
    this.payload = payload;
    this.name = payload.name;
    this.axis = "log";
    this.address = new Map();
    this.choices = new Map();
    this.tip = document.getElementById("tip");
    this.prefersDark = window.matchMedia("(prefers-color-scheme: dark)");
    this.resizeObserver = new ResizeObserver((entries) => entries.forEach((entry) => this.resize(entry)));
    this.sizes = new WeakMap();
    this.forgetColours();
  }

  stepScale(axis = this.axis) {
    return makeStepScale(axis, this.first, this.last);
  }

  // Call `draw` whenever an element's width changes.
  watchSize(element, draw) {
    this.sizes.set(element, { width: 0, draw });
    this.resizeObserver.observe(element);
  }

  resize(entry) {
    const size = this.sizes.get(entry.target);
    const width = Math.round(entry.contentRect.width);
    if (width !== size.width) {
      size.width = width;
      size.draw();
    }
  }

  // -- Colours.

  forgetColours() {
    this.colours = new Map();
    const { theme } = document.documentElement.dataset;
    this.isDark = !this.isPrinting && (theme ? theme === "dark" : this.prefersDark.matches);
  }

  colour(name) {
    if (!this.colours.has(name)) {
      this.colours.set(name, getComputedStyle(document.documentElement).getPropertyValue(name).trim());
    }
    return this.colours.get(name);
  }

  rgb(name) {
    const hex = this.colour(name);
    return [1, 3, 5].map((start) => parseInt(hex.slice(start, start + 2), 16));
  }

  bindPage() {
    this.bindChoice("axis", (value) => {
      this.axis = value;
      this.redraw();
    });
    this.bindChoice("theme", (value) => {
      if (value === "auto") delete document.documentElement.dataset.theme;
      else document.documentElement.dataset.theme = value;
      this.redraw();
    });
    this.prefersDark.addEventListener("change", () => this.redraw());
    window.addEventListener("beforeprint", () => this.setPrinting(true));
    window.addEventListener("afterprint", () => this.setPrinting(false));
    window.addEventListener("hashchange", () => this.restoreChoices());
    const main = document.getElementById("main");
    main.tabIndex = -1;
    document.querySelector(".skip").addEventListener("click", (event) => {
      // The fragment of the address stores the choices, so it cannot name an element.
      event.preventDefault();
      main.focus();
    });
  }

  setPrinting(isPrinting) {
    this.isPrinting = isPrinting;
    document.documentElement.classList.toggle("printing", isPrinting);
    this.redraw();
  }

  // -- Choices and the address that stores them.

  // Store the choice of a select in the address, and call `apply` with its value when it changes.
  bindChoice(id, apply) {
    const select = document.getElementById(id);
    const initial = select.value;
    this.choices.set(id, { select, initial, apply });
    select.addEventListener("change", () => {
      this.store(id, select.value === initial ? null : select.value);
      apply(select.value);
    });
  }

  store(name, value) {
    if (value === null) this.address.delete(name);
    else this.address.set(name, value);
    clearTimeout(this.timer);
    this.timer = setTimeout(() => {
      const text = [...this.address].map(([key, choice]) => `${key}=${encodeURIComponent(choice)}`).join("&");
      // Some browsers refuse to change the address of a file.
      try {
        history.replaceState(null, "", `#${text}`);
      } catch {
        this.timer = 0;
      }
    }, 300);
  }

  // Apply the choices of the address, and return all its parameters. An address without any choice changes nothing.
  restoreChoices() {
    const parameters = new URLSearchParams(location.hash.slice(1));
    if (![...this.choices.keys(), "step"].some((name) => parameters.has(name))) return parameters;
    for (const [id, { select, initial, apply }] of this.choices) {
      const value = parameters.get(id) ?? initial;
      if (value === select.value || ![...select.options].some((option) => option.value === value)) continue;
      select.value = value;
      if (value === initial) this.address.delete(id);
      else this.address.set(id, value);
      apply(value);
    }
    return parameters;
  }

  // -- The tooltip.

  // Show lines of text next to the pointer; hide the tooltip if `event` is null.
  showTip(event, rows) {
    this.tip.hidden = !event || !rows;
    if (this.tip.hidden) return;
    this.tip.replaceChildren(...rows.map((row) => html("div", {}, row)));
    const { offsetWidth: width, offsetHeight: height } = this.tip;
    const right = event.clientX + 14;
    const x = right + width > window.innerWidth ? event.clientX - width - 14 : right;
    this.tip.style.left = `${Math.max(4, x)}px`;
    this.tip.style.top = `${clamp(event.clientY + 14, 4, window.innerHeight - height - 4)}px`;
  }
}
