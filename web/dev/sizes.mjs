// Prints what a first load costs: every file that dist/index.html names, and what those import at once, gzipped.
import fs from 'node:fs';
import path from 'node:path';
import zlib from 'node:zlib';

const dist = new URL('../dist/', import.meta.url).pathname;
const size = (name) => zlib.gzipSync(fs.readFileSync(path.join(dist, name)), { level: 9 }).length;
const html = fs.readFileSync(path.join(dist, 'index.html'), 'utf8');
const first = new Set(['index.html', ...[...html.matchAll(/(?:src|href)="\/([^"]+)"/g)].map((match) => match[1])]);
for (const name of first) {
  if (!name.endsWith('.js')) continue;
  const text = fs.readFileSync(path.join(dist, name), 'utf8');
  for (const match of text.matchAll(/(?:from|import)\s*"\.\/([^"]+\.js)"/g)) first.add(`assets/${match[1]}`);
}
let total = 0;
for (const name of first) {
  total += size(name);
  console.log(`first load  ${String(size(name)).padStart(7)} B gzip  ${name}`);
}
console.log(`first load  ${String(total).padStart(7)} B gzip  in all (limit 307200)`);
for (const name of fs.readdirSync(path.join(dist, 'assets'))) {
  if (!first.has(`assets/${name}`)) console.log(`later       ${String(size(`assets/${name}`)).padStart(7)} B gzip  assets/${name}`);
}
if (total > 300 * 1024) {
  console.error('the first load is over its limit of 300 KiB');
  process.exit(1);
}
