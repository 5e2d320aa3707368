// The one WebSocket that carries all watches.
//
// 1. `open` sends {"op":"start"} with a fresh id; events come back under that id.
// 2. When the socket closes, every watch is told `lost`; the socket is opened anew with growing pauses, and then every
//    watch is told `restored`, upon which it starts again from its own last resourceVersion.
// 3. Close code 4401 means that the session ended: no further tries. However the session ends, the socket goes with it:
//    it was opened as that user, and the next one who signs in may be another.
import { onSessionEnd, sessionEnded } from './client';
import type { KubeObject, Status } from './objects';

export interface WatchEvent {
  type: 'ADDED' | 'MODIFIED' | 'DELETED' | 'BOOKMARK' | 'ERROR';
  object: KubeObject;
}

export interface WatchHandler {
  event(event: WatchEvent): void;
  end(status: Status | null): void;
  lost(): void;
  restored(): void;
}

export type StreamState = 'connecting' | 'live' | 'reconnecting' | 'ended';
type Message = { id: number; event?: WatchEvent; end?: Status | null };

const FIRST_PAUSE = 300;
const LONGEST_PAUSE = 10_000;
const SESSION_ENDED = 4401;

export class Stream {
  #socket: WebSocket | undefined;
  #handlers = new Map<number, WatchHandler>();
  #waiting = new Set<WatchHandler>();
  #nextId = 1;
  #pause = FIRST_PAUSE;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #listeners = new Set<() => void>();
  state: StreamState = 'connecting';
  /** When the connection was lost, for the banner. */
  lostAt = 0;

  constructor(private readonly connect: () => WebSocket) {}

  subscribe = (listener: () => void): (() => void) => {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  };

  #set(state: StreamState) {
    if (state === this.state) return;
    if (state === 'reconnecting') this.lostAt = Date.now();
    this.state = state;
    for (const listener of this.#listeners) listener();
  }

  /** Starts a watch; when the socket is not open, the handler is told `restored` later and asks again. */
  open(path: string, handler: WatchHandler): () => void {
    if (this.#socket?.readyState !== WebSocket.OPEN) {
      this.#waiting.add(handler);
      if (!this.#socket && !this.#timer) this.#dial();
      return () => this.#waiting.delete(handler);
    }
    const id = this.#nextId++;
    this.#handlers.set(id, handler);
    this.#socket.send(JSON.stringify({ op: 'start', id, path }));
    return () => this.#stop(id);
  }

  #stop(id: number) {
    if (!this.#handlers.delete(id)) return;
    if (this.#socket?.readyState === WebSocket.OPEN) this.#socket.send(JSON.stringify({ op: 'stop', id }));
  }

  /** Tries at once instead of after the pause. */
  retryNow = () => {
    if (!this.#timer) return;
    clearTimeout(this.#timer);
    this.#dial();
  };

  #dial() {
    this.#timer = undefined;
    const socket = this.connect();
    this.#socket = socket;
    socket.onopen = () => this.#opened();
    socket.onmessage = (message) => this.#receive(JSON.parse(message.data as string) as Message);
    socket.onclose = (event) => this.#closed(event.code);
  }

  #opened() {
    this.#pause = FIRST_PAUSE;
    this.#set('live');
    const waiting = [...this.#waiting];
    this.#waiting.clear();
    for (const handler of waiting) handler.restored();
  }

  #receive(message: Message) {
    const handler = this.#handlers.get(message.id);
    if (!handler) return;
    if (message.event) return handler.event(message.event);
    this.#handlers.delete(message.id);
    handler.end(message.end ?? null);
  }

  #closed(code: number) {
    this.#socket = undefined;
    const lost = [...this.#handlers.values()];
    this.#handlers.clear();
    for (const handler of lost) {
      this.#waiting.add(handler);
      handler.lost();
    }
    if (code === SESSION_ENDED) return sessionEnded();
    this.#set('reconnecting');
    // Jitter: many tabs must not come back at the same instant.
    this.#timer = setTimeout(() => this.#dial(), this.#pause * (0.7 + Math.random() * 0.6));
    this.#pause = Math.min(this.#pause * 2, LONGEST_PAUSE);
  }

  /** Drops the socket and all watches; the next watch dials anew, as who is signed in then. */
  end = () => {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#handlers.clear();
    this.#waiting.clear();
    const socket = this.#socket;
    this.#socket = undefined;
    if (socket) {
      socket.onopen = socket.onmessage = socket.onclose = null;
      socket.close();
    }
    this.#set('ended');
  };

  /** Drops a handler that waits for the socket. */
  forget(handler: WatchHandler) {
    this.#waiting.delete(handler);
  }
}

const streamUrl = () => `${location.protocol === 'https:' ? 'wss' : 'ws'}://${location.host}/stream`;

export const stream = new Stream(() => new WebSocket(streamUrl()));

onSessionEnd(stream.end);
if (typeof window !== 'undefined') window.addEventListener('online', () => stream.retryNow());
