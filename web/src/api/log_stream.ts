// Reads the log of one container as a stream of lines; follows until stopped, and comes back after a lost connection.
//
// A followed log ends when its container does, and just so when the node's agent is started anew. So after an end it is
// read once more from where it was: what brings nothing new has ended.
import { ApiError, send } from './client';
import { LineSplitter } from '../lib/logs';

export interface LogQuery {
  namespace: string;
  pod: string;
  container: string;
  follow: boolean;
  previous: boolean;
  tailLines: number;
}
export interface LogSink {
  lines(lines: string[]): void;
  /** `undefined`: reading; a text: why it ended. */
  state(ended: string | undefined): void;
}

const RETRY = 2000;
const STAMP = /^(\S+) /;

function pathOf(query: LogQuery, since: string | undefined): string {
  const parameters = new URLSearchParams({ container: query.container, timestamps: 'true' });
  if (query.follow) parameters.set('follow', 'true');
  if (query.previous) parameters.set('previous', 'true');
  if (since) parameters.set('sinceTime', since);
  else parameters.set('tailLines', String(query.tailLines));
  return `/kube/api/v1/namespaces/${encodeURIComponent(query.namespace)}/pods/${encodeURIComponent(query.pod)}/log?${parameters}`;
}

/** Reads until the end; answers whether there was anything new. */
async function readOnce(query: LogQuery, sink: LogSink, signal: AbortSignal, last: { line?: string; time?: string }): Promise<boolean> {
  const response = await send(pathOf(query, last.time), { signal });
  sink.state(undefined);
  const reader = response.body!.pipeThrough(new TextDecoderStream()).getReader();
  const splitter = new LineSplitter();
  // After a reconnect the server repeats the lines of the last second: skip to behind the one we had.
  let skipping = last.line;
  let news = false;
  const pass = (lines: string[]) => {
    let fresh = lines;
    if (skipping !== undefined) {
      const at = lines.lastIndexOf(skipping);
      fresh = at >= 0 ? lines.slice(at + 1) : lines.filter((line) => (STAMP.exec(line)?.[1] ?? '') > (last.time ?? ''));
      if (at >= 0 || fresh.length) skipping = undefined;
    }
    const newest = fresh[fresh.length - 1];
    if (newest !== undefined) {
      last.line = newest;
      last.time = STAMP.exec(newest)?.[1] ?? last.time;
    }
    if (!fresh.length) return;
    news = true;
    sink.lines(fresh);
  };
  for (;;) {
    const { done, value } = await reader.read();
    if (done) break;
    pass(splitter.push(value));
  }
  pass(splitter.flush());
  return news;
}

/** Starts reading; the result stops it. */
export function streamLog(query: LogQuery, sink: LogSink): () => void {
  const abort = new AbortController();
  const last: { line?: string; time?: string } = {};
  const run = async () => {
    let ended = false;
    while (!abort.signal.aborted) {
      try {
        const news = await readOnce(query, sink, abort.signal, last);
        if (!query.follow || (ended && !news)) return sink.state('The log ended.');
        ended = true;
      } catch (error) {
        if (abort.signal.aborted) return undefined;
        const lost = !(error instanceof ApiError) || error.code === 0 || error.code >= 502;
        sink.state(lost && query.follow ? 'Connection lost; reading again.' : ended ? 'The log ended.' : (error as Error).message);
        if (!lost || !query.follow) return undefined;
      }
      await new Promise((resolve) => setTimeout(resolve, RETRY));
    }
    return undefined;
  };
  void run();
  return () => abort.abort();
}
