// What every page has: it follows its own size and theme, and keeps every choice in its address.

class Sheet {
  constructor(payload) {
    this.payload = payload;
    this.name = payload.name;
    this.axis = "log";
    this.address = new Map();
    this.choices = new Map();
    this.tipBox = document.getElementById("tip");
    this.dark = window.matchMedia("(prefers-color-scheme: dark)");
    this.resized = new ResizeObserver((entries) => entries.forEach((entry) => this.resize(entry)));
    this.sizes = new WeakMap();
    this.forgetColours();
  }

  stepScale() {
    return stepScale(this.axis, this.first, this.last);
  }

  watchSize(element, draw) {
    this.sizes.set(element, { width: 0, draw });
    this.resized.observe(element);
  }

  resize(entry) {
    const one = this.sizes.get(entry.target);
    const width = Math.round(entry.contentRect.width);
    if (width !== one.width) {
      one.width = width;
      one.draw();
    }
  }

  // -- Colours.

  forgetColours() {
    this.colours = new Map();
    const chosen = document.documentElement.dataset.theme;
    this.isDark = this.printing ? false : chosen ? chosen === "dark" : this.dark.matches;
  }

  colour(name) {
    if (!this.colours.has(name)) this.colours.set(name, getComputedStyle(document.documentElement).getPropertyValue(name).trim());
    return this.colours.get(name);
  }

  rgb(name) {
    const hex = this.colour(name);
    return [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));
  }

  bindSheet() {
    this.choice("axis", (value) => {
      this.axis = value;
      this.redraw();
    });
    this.choice("theme", (value) => {
      if (value === "auto") delete document.documentElement.dataset.theme;
      else document.documentElement.dataset.theme = value;
      this.redraw();
    });
    this.dark.addEventListener("change", () => this.redraw());
    window.addEventListener("beforeprint", () => this.print(true));
    window.addEventListener("afterprint", () => this.print(false));
    window.addEventListener("hashchange", () => this.recall());
    const main = document.getElementById("main");
    main.tabIndex = -1;
    document.querySelector(".skip").addEventListener("click", (event) => {
      // The address is the choices', and names no place of the page.
      event.preventDefault();
      main.focus();
    });
  }

  print(on) {
    this.printing = on;
    document.documentElement.classList.toggle("printing", on);
    this.redraw();
  }

  // -- Choices, and the address that holds them.

  // A select whose choice is part of the address.
  choice(id, act) {
    const select = document.getElementById(id);
    const usual = select.value;
    this.choices.set(id, { select, usual, act });
    select.addEventListener("change", () => {
      this.remember(id, select.value === usual ? null : select.value);
      act(select.value);
    });
  }

  remember(name, value) {
    if (value === null) this.address.delete(name);
    else this.address.set(name, value);
    clearTimeout(this.saving);
    this.saving = setTimeout(() => {
      const text = [...this.address].map(([key, one]) => `${key}=${encodeURIComponent(one)}`).join("&");
      // Some browsers keep a file's address as it is.
      try {
        history.replaceState(null, "", `#${text}`);
      } catch {
        this.saving = 0;
      }
    }, 300);
  }

  // Choose what the address says, and return the rest of what it says. One that names no choice at all changes none.
  recall() {
    const asked = new URLSearchParams(location.hash.slice(1));
    if (![...this.choices.keys(), "step"].some((name) => asked.has(name))) return asked;
    for (const [id, { select, usual, act }] of this.choices) {
      const value = asked.get(id) ?? usual;
      if (value === select.value || ![...select.options].some((option) => option.value === value)) continue;
      select.value = value;
      if (value === usual) this.address.delete(id);
      else this.address.set(id, value);
      act(value);
    }
    return asked;
  }

  // -- What the pointer is at.

  tip(event, rows) {
    this.tipBox.hidden = !event || !rows;
    if (this.tipBox.hidden) return;
    this.tipBox.replaceChildren(...rows.map((row) => html("div", {}, row)));
    const { offsetWidth: width, offsetHeight: height } = this.tipBox;
    const x = event.clientX + 14 + width > window.innerWidth ? event.clientX - width - 14 : event.clientX + 14;
    this.tipBox.style.left = `${Math.max(4, x)}px`;
    this.tipBox.style.top = `${clamped(event.clientY + 14, 4, window.innerHeight - height - 4)}px`;
  }
}
