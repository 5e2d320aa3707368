// Log text to lines: bytes arrive in pieces, lines end at \n, a timestamp leads each line when it was asked for.
// ANSI colour sequences are stripped: they are no part of the message, and nothing of a log is interpreted as markup.

export interface LogLine {
  /** Grows by one with each line of a view: the key of a row. */
  id: number;
  source: string;
  time?: string;
  text: string;
}

const ANSI = /\u001b\[[0-9;?]*[ -/]*[@-~]|\u001b\][^\u0007\u001b]*(?:\u0007|\u001b\\)/g;
const TIMESTAMP = /^(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|[+-]\d\d:\d\d)) ?/;

/** Longer lines are cut for display; the download has them whole. */
export const LONGEST_SHOWN = 10_000;

export function parseLine(raw: string): { time?: string; text: string } {
  const match = TIMESTAMP.exec(raw);
  const text = (match ? raw.slice(match[0].length) : raw).replace(ANSI, '').replace(/\r$/, '');
  return { time: match?.[1], text };
}

/** Cuts a stream of text into lines; what has no end yet waits for the next piece. */
export class LineSplitter {
  #rest = '';

  push(piece: string): string[] {
    const lines = (this.#rest + piece).split('\n');
    this.#rest = lines.pop() ?? '';
    return lines;
  }

  flush(): string[] {
    const rest = this.#rest;
    this.#rest = '';
    return rest ? [rest] : [];
  }
}

/** Keeps the newest lines of several sources, in order of their timestamps, up to a bound. */
export class LogBuffer {
  lines: LogLine[] = [];
  dropped = 0;
  #next = 0;
  #newest = '';

  constructor(private readonly capacity = 50_000) {}

  append(source: string, raw: string[]) {
    const fresh = raw.map((line): LogLine => ({ id: this.#next++, source, ...parseLine(line) }));
    const outOfOrder = fresh.some((line) => line.time && line.time < this.#newest);
    for (const { time } of fresh) if (time && time > this.#newest) this.#newest = time;
    // Not push(...fresh): a flood can hold more lines than a call may have arguments.
    this.lines = this.lines.concat(fresh);
    if (outOfOrder) this.lines = sortByTime(this.lines);
    const over = this.lines.length - this.capacity;
    if (over <= 0) return;
    // A tenth at once, so that a flood does not copy the array for each line.
    const cut = Math.min(this.lines.length, over + Math.floor(this.capacity / 10));
    this.lines = this.lines.slice(cut);
    this.dropped += cut;
  }

  clear() {
    this.lines = [];
    this.dropped = 0;
  }
}

/** Stable: lines without a timestamp stay behind the line before them. */
function sortByTime(lines: LogLine[]): LogLine[] {
  let last = '';
  const keyed = lines.map((line) => ({ line, key: (last = line.time ?? last) }));
  keyed.sort((left, right) => (left.key < right.key ? -1 : left.key > right.key ? 1 : left.line.id - right.line.id));
  return keyed.map((entry) => entry.line);
}

/** A matcher for the search field: plain text without case, or a regular expression between slashes. */
export function matcher(query: string): (text: string) => boolean {
  const pattern = /^\/(.+)\/(i?)$/.exec(query);
  if (pattern) {
    try {
      const expression = new RegExp(pattern[1]!, pattern[2]);
      return (text) => expression.test(text);
    } catch {
      return () => false;
    }
  }
  const wanted = query.toLowerCase();
  return (text) => text.toLowerCase().includes(wanted);
}
