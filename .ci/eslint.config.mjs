// The linter of the report's scripts, run by `make check` where Node.js is installed. It needs no plugin, so that
// `npx` alone can run it.

const browser = [
  "Blob", "Image", "ImageData", "IntersectionObserver", "NodeFilter", "ResizeObserver", "URL", "URLSearchParams",
  "XMLSerializer", "atob", "clearTimeout", "document", "fetch", "getComputedStyle", "history", "location",
  "navigator", "performance", "requestAnimationFrame", "setTimeout", "window",
];
// Texts must become text nodes: markup built from a string would let a hostile name act on the page.
const message = "Build elements instead of markup.";
const markupProperty = "MemberExpression[property.name=/^(innerHTML|outerHTML|srcdoc)$/]";
const markupCall = "CallExpression[callee.property.name=/^(insertAdjacentHTML|write|writeln)$/]";

export default [
  {
    languageOptions: {
      ecmaVersion: 2023,
      sourceType: "module",
      globals: Object.fromEntries(browser.map((name) => [name, "readonly"])),
    },
    linterOptions: { reportUnusedDisableDirectives: "error" },
    rules: {
      "consistent-return": "error",
      "constructor-super": "error",
      "default-case-last": "error",
      "eqeqeq": "error",
      "max-len": ["error", { code: 118 }],
      "max-lines": ["error", 300],
      "no-cond-assign": "error",
      "no-const-assign": "error",
      "no-constant-condition": "error",
      "no-dupe-class-members": "error",
      "no-dupe-else-if": "error",
      "no-dupe-keys": "error",
      "no-duplicate-imports": "error",
      "no-else-return": "error",
      "no-empty": "error",
      "no-eval": "error",
      "no-fallthrough": "error",
      "no-func-assign": "error",
      "no-implied-eval": "error",
      "no-import-assign": "error",
      "no-loss-of-precision": "error",
      "no-new-func": "error",
      "no-redeclare": "error",
      "no-restricted-syntax": [
        "error",
        { selector: markupProperty, message },
        { selector: markupCall, message },
        { selector: "ImportExpression", message: "The page cannot load scripts." },
      ],
      "no-self-assign": "error",
      "no-self-compare": "error",
      "no-shadow": "error",
      "no-this-before-super": "error",
      "no-undef": "error",
      "no-unreachable": "error",
      "no-unused-vars": ["error", { args: "all", argsIgnorePattern: "^_" }],
      "no-use-before-define": ["error", { functions: false, variables: false }],
      "no-useless-return": "error",
      "no-var": "error",
      "object-shorthand": "error",
      "prefer-const": "error",
      "quotes": ["error", "double", { avoidEscape: true, allowTemplateLiterals: false }],
      "semi": "error",
      "sort-imports": ["error", { ignoreDeclarationSort: true }],
      "use-isnan": "error",
      "valid-typeof": "error",
    },
  },
];
