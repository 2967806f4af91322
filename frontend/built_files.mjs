// What is done with the built files of all pages: the licences of what is in them, and a compressed copy beside each.
import { readFile, readdir, writeFile } from "node:fs/promises";
import path from "node:path";
import { promisify } from "node:util";
import { gzip } from "node:zlib";

const COMPRESSED = /\.(js|css|svg|txt)$/;

/** Write a copy with `.gz` behind its name beside each file of the folder that is text; the server sends these. */
export async function compress(folder) {
  const entries = await readdir(folder, { recursive: true, withFileTypes: true });
  const files = entries.filter((entry) => entry.isFile() && COMPRESSED.test(entry.name));
  await Promise.all(
    files.map(async ({ parentPath, name }) => {
      const file = path.join(parentPath, name);
      await writeFile(`${file}.gz`, await promisify(gzip)(await readFile(file), { level: 9 }));
    }),
  );
}

/** The text about the packages that the bundled files come from: absolute paths, of which only those of packages count. */
export async function licences(page, files) {
  const folders = new Set();
  for (const file of files) {
    const match = /^(.*node_modules\/(?:@[^/]+\/)?[^/]+)\//.exec(file.replaceAll("\\", "/"));
    if (match) folders.add(match[1]);
  }
  const texts = [];
  for (const folder of [...folders].sort()) {
    const { name, version, license, author } = JSON.parse(await readFile(path.join(folder, "package.json"), "utf8"));
    const named = (await readdir(folder)).filter((file) => /^(licen[cs]e|copying|notice|thirdpartynotices)/i.test(file));
    const text = await Promise.all(named.map((file) => readFile(path.join(folder, file), "utf8")));
    if (!text.length && license !== "MIT") throw new Error(`${name} comes without the text of its licence`);
    const owner = author?.name ?? author ?? `the contributors of ${name}`;
    texts.push(`${name} ${version} (${license})\n\n${text.join("\n\n").trim() || mit(owner)}\n`);
  }
  return `The ${page} of gql-jobs contains these packages.\n\n${texts.join(`\n${"-".repeat(80)}\n\n`)}`;
}

// For packages that name this licence and leave its text out.
const mit = (owner) => `Copyright (c) ${owner}

Permission is hereby granted, free of charge, to any person obtaining a copy of this software and associated
documentation files (the "Software"), to deal in the Software without restriction, including without limitation the
rights to use, copy, modify, merge, publish, distribute, sublicense, and/or sell copies of the Software, and to permit
persons to whom the Software is furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all copies or substantial portions of the
Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT NOT LIMITED TO THE
WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR
COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR
OTHERWISE, ARISING FROM, OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE.`;
