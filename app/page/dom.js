/** Short ways to the document. */

/** @param {string} id @returns {any} */
export const $ = (id) => document.getElementById(id);

/**
 * A new element.
 * @param {string} tag
 * @param {Object<string, any>} [facts] its properties, and attributes where their names have a dash or are `role`
 * @param {...(Node|string)} content
 * @returns {any}
 */
export function make(tag, facts = {}, ...content) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(facts)) {
    if (name.includes("-") || name === "role") element.setAttribute(name, value);
    else element[name] = value;
  }
  element.append(...content);
  return element;
}

/** @param {Blob} blob @param {string} name */
export function save(blob, name) {
  const address = URL.createObjectURL(blob);
  make("a", { href: address, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(address), 10_000);
}
