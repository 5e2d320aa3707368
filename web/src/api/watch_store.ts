// One list kept true by a watch: list in pages, watch from the list's resourceVersion, resume from the last one seen.
//
//   list ──> watch ──event──> apply, notify (at most once per frame, slower for big lists)
//     ^        │ 410              │ socket lost: keep what we have, state `reconnecting`
//     └────────┘                  └─ restored: watch again from the last resourceVersion
//
// Invariant: `objects` is what the server had at `resourceVersion`; a list that replaces it removes what vanished.
import { ApiError, errorOf, getList, sessionEnded } from './client';
import { objectKey, type KubeList, type KubeObject, type Status } from './objects';
import type { Stream, WatchEvent, WatchHandler } from './stream';

export type ListPhase = 'loading' | 'live' | 'reconnecting' | 'failed';

export interface Snapshot {
  phase: ListPhase;
  items: readonly KubeObject[];
  /** Grows with every change: a cheap dependency for memoised views. */
  version: number;
  error?: ApiError;
  remaining?: number;
}

type Lister = (path: string) => Promise<KubeList>;

const PAGE = 1000;
const BIG = 3000;
const RETRY = 3000;

const withQuery = (path: string, query: string) => `${path}${path.includes('?') ? '&' : '?'}${query}`;

export class WatchStore implements WatchHandler {
  objects = new Map<string, KubeObject>();
  snapshot: Snapshot = { phase: 'loading', items: [], version: 0 };
  #resourceVersion = '';
  #listeners = new Set<() => void>();
  #close: (() => void) | undefined;
  #notifyTimer: ReturnType<typeof setTimeout> | undefined;
  #retryTimer: ReturnType<typeof setTimeout> | undefined;
  #stopped = true;
  #watchedAt = 0;
  /** Distinguishes a list under way from one that a restart made obsolete. */
  #run = 0;

  constructor(
    readonly path: string,
    private readonly stream: Pick<Stream, 'open' | 'forget'>,
    private readonly lister: Lister = (path) => getList(path),
  ) {}

  subscribe = (listener: () => void): (() => void) => {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  };

  get watched() {
    return this.#listeners.size > 0;
  }

  start() {
    if (!this.#stopped) return;
    this.#stopped = false;
    if (this.#resourceVersion) this.#watch();
    else void this.#list();
  }

  stop() {
    this.#stopped = true;
    this.#run += 1;
    this.#close?.();
    this.#close = undefined;
    this.stream.forget(this);
    clearTimeout(this.#retryTimer);
  }

  async #list() {
    const run = ++this.#run;
    const seen = new Map<string, KubeObject>();
    const first = this.objects.size === 0;
    let token = '';
    try {
      do {
        const page = await this.lister(withQuery(this.path, `limit=${PAGE}${token ? `&continue=${encodeURIComponent(token)}` : ''}`));
        if (run !== this.#run || this.#stopped) return;
        for (const item of page.items) seen.set(objectKey(item), slim(item));
        token = page.metadata.continue ?? '';
        this.#resourceVersion = page.metadata.resourceVersion ?? '';
        if (first && token) this.#publish('loading', seen, page.metadata.remainingItemCount);
      } while (token);
      this.objects = seen;
      this.#publish('live', seen);
      this.#watch();
    } catch (error) {
      if (run === this.#run && !this.#stopped) this.#failed(error);
    }
  }

  #failed(error: unknown) {
    const known = error instanceof ApiError ? error : new ApiError(0, 'Unknown', String(error));
    if (known.gone) return void this.#list();
    this.#resourceVersion = '';
    // A refusal stands until the rights change; whatever else may pass is tried again.
    const passing = known.code === 0 || known.code === 429 || known.code >= 500;
    this.#publish(passing && this.objects.size > 0 ? 'reconnecting' : 'failed', this.objects, undefined, known);
    this.#retryTimer = setTimeout(() => void this.#list(), passing ? RETRY : 10 * RETRY);
  }

  #watch() {
    this.#close?.();
    this.#watchedAt = Date.now();
    const query = `watch=1&allowWatchBookmarks=true&resourceVersion=${encodeURIComponent(this.#resourceVersion)}`;
    this.#close = this.stream.open(withQuery(this.path, query), this);
  }

  event(event: WatchEvent) {
    if (event.type === 'ERROR') return this.end(event.object as unknown as Status);
    this.#resourceVersion = event.object.metadata.resourceVersion ?? this.#resourceVersion;
    if (event.type === 'BOOKMARK') return;
    if (event.type === 'DELETED') this.objects.delete(objectKey(event.object));
    else this.objects.set(objectKey(event.object), slim(event.object));
    this.#notifySoon();
  }

  end(status: Status | null) {
    this.#close = undefined;
    if (this.#stopped) return;
    const error = status && errorOf(status.code ?? 0, status, 'the watch ended');
    if (error?.gone) return void this.#list();
    // A token that was revoked or ran out while the page was open.
    if (error?.code === 401) return sessionEnded();
    if (error && (error.code === 403 || error.code === 404)) return this.#failed(error);
    // Servers end watches after a while by design. One that ends with an error, or as soon as it began, waits: its
    // server may be down, and asking at once would be a storm.
    if (!error && Date.now() - this.#watchedAt > RETRY) return this.#watch();
    this.#publish('reconnecting', this.objects);
    this.#retryTimer = setTimeout(() => this.#stopped || this.restored(), RETRY);
  }

  lost() {
    this.#close = undefined;
    if (!this.#stopped) this.#publish('reconnecting', this.objects);
  }

  restored() {
    if (this.#stopped) return;
    if (this.#resourceVersion) {
      this.#watch();
      this.#publish('live', this.objects);
    } else {
      void this.#list();
    }
  }

  #notifySoon() {
    if (this.#notifyTimer) return;
    const pause = this.objects.size > BIG ? 250 : 30;
    this.#notifyTimer = setTimeout(() => this.#publish(this.snapshot.phase === 'failed' ? 'live' : this.snapshot.phase, this.objects), pause);
  }

  #publish(phase: ListPhase, objects: Map<string, KubeObject>, remaining?: number, error?: ApiError) {
    clearTimeout(this.#notifyTimer);
    this.#notifyTimer = undefined;
    this.snapshot = { phase, items: [...objects.values()], version: this.snapshot.version + 1, error, remaining };
    for (const listener of this.#listeners) listener();
  }
}

/** Managed fields are half of many an object and no page of ours shows them: they go before they cost memory. */
function slim(object: KubeObject): KubeObject {
  if (object.metadata.managedFields) delete object.metadata.managedFields;
  return object;
}
