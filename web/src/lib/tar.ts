// tar archives, as the node's own tool writes and reads them (ustar with GNU long names): what the browser of volumes needs.

export interface TarEntry {
  /** Its path in the archive, without a slash at its end. */
  path: string;
  directory: boolean;
  size: number;
  /** Where its bytes begin in the archive. */
  start: number;
}

const BLOCK = 512;
const NAME_BYTES = 100;
const text = (bytes: Uint8Array) => {
  const end = bytes.indexOf(0);
  return new TextDecoder().decode(end < 0 ? bytes : bytes.subarray(0, end));
};
const octal = (bytes: Uint8Array) => parseInt(text(bytes).trim() || '0', 8);
const whole = (size: number) => Math.ceil(size / BLOCK) * BLOCK;

/** The path that a pax header gives: records of `LENGTH path=VALUE\n`. */
function paxPath(body: Uint8Array): string | undefined {
  return /(?:^|\n)\d+ path=([^\n]*)\n/.exec(new TextDecoder().decode(body))?.[1];
}

/** The files and directories of an archive; throws on what is cut off or is none. */
export function readTar(archive: Uint8Array): TarEntry[] {
  const entries: TarEntry[] = [];
  let long: string | undefined;
  for (let at = 0; at + BLOCK <= archive.length; ) {
    const header = archive.subarray(at, at + BLOCK);
    if (header.every((byte) => byte === 0)) return entries;
    const size = octal(header.subarray(124, 136));
    const start = at + BLOCK;
    if (!Number.isSafeInteger(size) || size < 0) throw new Error('What was sent is no tar archive.');
    if (start + size > archive.length) throw new Error('The archive is cut off.');
    const type = String.fromCharCode(header[156] ?? 0);
    const body = archive.subarray(start, start + size);
    if (type === 'L') long = text(body);
    else if (type === 'x') long = paxPath(body) ?? long;
    else {
      const prefix = text(header.subarray(257, 262)) === 'ustar' && header[263] === 0x30 ? text(header.subarray(345, 500)) : '';
      const path = (long ?? [prefix, text(header.subarray(0, NAME_BYTES))].filter(Boolean).join('/')).replace(/\/+$/, '');
      long = undefined;
      if (type === '5' || type === '0' || type === '\0') entries.push({ path, directory: type === '5', size, start });
    }
    at = start + whole(size);
  }
  return entries;
}

/** An archive of one file. The name is one of a file in the directory that the archive is unpacked in. */
export function writeTar(name: string, content: Uint8Array, seconds: number): Uint8Array {
  const encoded = new TextEncoder().encode(name);
  if (!encoded.length || encoded.length > NAME_BYTES) throw new Error(`The name of a file may have 1 to ${NAME_BYTES} bytes; this one has ${encoded.length}.`);
  if (name.includes('/') || name === '.' || name === '..') throw new Error(`${name} is no name of a file.`);
  const archive = new Uint8Array(BLOCK + whole(content.length) + 2 * BLOCK);
  const put = (at: number, value: string) => archive.set(new TextEncoder().encode(value), at);
  const number = (at: number, value: number, digits: number) => put(at, value.toString(8).padStart(digits, '0'));
  archive.set(encoded, 0);
  number(100, 0o644, 7);
  number(108, 0, 7);
  number(116, 0, 7);
  number(124, content.length, 11);
  number(136, seconds, 11);
  put(148, '        ');
  put(156, '0');
  put(257, 'ustar\u000000');
  const sum = archive.subarray(0, BLOCK).reduce((total, byte) => total + byte, 0);
  put(148, `${sum.toString(8).padStart(6, '0')}\0 `);
  archive.set(content, BLOCK);
  return archive;
}

/** What lies directly in a directory of an archive: directories first, then by name. */
export function childrenOf(entries: TarEntry[], directory: string): { name: string; entry: TarEntry }[] {
  const inside = entries.filter((entry) => entry.path.startsWith(`${directory}/`));
  const children = inside.map((entry) => ({ name: entry.path.slice(directory.length + 1), entry })).filter(({ name }) => name && !name.includes('/'));
  return children.sort((a, b) => Number(b.entry.directory) - Number(a.entry.directory) || (a.name < b.name ? -1 : 1));
}
