// Parses the AsyncAPI document with the AsyncAPI project's own parser, and with it every file that it refers to.
//
//     npm ci --prefix DIRECTORY      (with tests/peers/npm/package-lock.json in it)
//     VIGIL_NPM=DIRECTORY node tests/peers/asyncapi_parser.mjs DOCUMENT
//
// Prints how much the parser found in it. Exit code 0 if it has neither an error nor a warning to tell, 1 if it has, 2
// on wrong usage.

import { createRequire } from "node:module";
import { resolve } from "node:path";

const [document, ...more] = process.argv.slice(2);
if (!process.env.VIGIL_NPM || !document || more.length > 0) {
  console.error("usage: VIGIL_NPM=DIRECTORY node tests/peers/asyncapi_parser.mjs DOCUMENT");
  process.exit(2);
}
const { Parser, fromFile } = createRequire(resolve(process.env.VIGIL_NPM) + "/")("@asyncapi/parser");

// Spectral's severities: 0 error, 1 warning; 2 is advice, such as that there is a newer version of AsyncAPI.
const WARNING = 1;

const { document: parsed, diagnostics } = await fromFile(new Parser(), resolve(document)).parse();
const wrong = diagnostics.filter((diagnostic) => diagnostic.severity <= WARNING);
for (const { code, path, message } of wrong) {
  console.error(`${document}: ${path.join(".")}: ${code}: ${message}`);
}
if (!parsed || wrong.length > 0) process.exit(1);
const counts = ["channels", "operations", "messages"].map((what) => `${parsed[what]().all().length} ${what}`);
console.log(`${document}: ${counts.join(", ")}`);
