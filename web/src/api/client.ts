// Requests to the dashboard's own server. Every refusal becomes an ApiError that carries the API's Status; a 401 tells
// the session store, which shows the sign-in page.
import type { KubeList, KubeObject, Status } from './objects';

export class ApiError extends Error {
  constructor(
    readonly code: number,
    readonly reason: string,
    message: string,
    readonly status?: Status,
  ) {
    super(message);
    this.name = 'ApiError';
  }

  get gone() {
    return this.code === 410 || this.reason === 'Expired' || this.reason === 'Gone';
  }
}

const NETWORK = 'The dashboard’s server does not answer.';
const endListeners = new Set<() => void>();

/** Calls back when a request or the stream learns that the session ended. */
export function onSessionEnd(listener: () => void): () => void {
  endListeners.add(listener);
  return () => endListeners.delete(listener);
}

export function sessionEnded(): void {
  for (const listener of endListeners) listener();
}

const isStatus = (body: unknown): body is Status => (body as Status | null)?.kind === 'Status';

export function errorOf(code: number, body: unknown, fallback: string): ApiError {
  if (isStatus(body)) return new ApiError(body.code ?? code, body.reason ?? '', body.message || fallback, body);
  return new ApiError(code, '', fallback);
}

async function refusal(response: Response): Promise<ApiError> {
  const text = await response.text().catch(() => '');
  let body: unknown;
  try {
    body = JSON.parse(text);
  } catch {
    body = undefined;
  }
  const fallback = text.trim().slice(0, 500) || `${response.status} ${response.statusText}`;
  return errorOf(response.status, body, fallback);
}

/** A request to the same origin; resolves with a response that succeeded, else throws an ApiError. */
export async function send(url: string, init: RequestInit = {}): Promise<Response> {
  const headers = new Headers(init.headers);
  if ((init.method ?? 'GET') !== 'GET') headers.set('X-Windlass-Request', '1');
  let response: Response;
  try {
    response = await fetch(url, { ...init, headers, credentials: 'same-origin', redirect: 'follow' });
  } catch (error) {
    if ((error as Error).name === 'AbortError') throw error;
    throw new ApiError(0, 'NetworkError', NETWORK);
  }
  if (response.ok) return response;
  if (response.status === 401 && url !== '/session') sessionEnded();
  throw await refusal(response);
}

export async function getJson<T>(path: string, init: RequestInit = {}): Promise<T> {
  const response = await send(`/kube${path}`, { ...init, headers: { Accept: 'application/json', ...init.headers } });
  return (await response.json()) as T;
}

export async function getText(path: string, init: RequestInit = {}): Promise<string> {
  return (await send(`/kube${path}`, init)).text();
}

export const getObject = (path: string, signal?: AbortSignal) => getJson<KubeObject>(path, { signal });
export const getList = (path: string, signal?: AbortSignal) => getJson<KubeList>(path, { signal });

/** What a write answers: the object, and the warnings that the API server gave with it. */
export interface Written {
  object: KubeObject;
  warnings: string[];
}

/** The texts of `Warning` headers: `299 - "text", 299 - "text"`. */
export function parseWarnings(header: string | null): string[] {
  if (!header) return [];
  return [...header.matchAll(/\d{3} \S+ "((?:[^"\\]|\\.)*)"/g)].map((match) => (match[1] ?? '').replace(/\\(.)/g, '$1'));
}

export async function write(method: string, path: string, body?: unknown, contentType = 'application/json'): Promise<Written> {
  const init: RequestInit = { method, headers: { Accept: 'application/json' } };
  if (body !== undefined) {
    init.body = typeof body === 'string' ? body : JSON.stringify(body);
    init.headers = { ...init.headers, 'Content-Type': contentType };
  }
  const response = await send(`/kube${path}`, init);
  const text = await response.text();
  const object = (text ? JSON.parse(text) : {}) as KubeObject;
  return { object, warnings: parseWarnings(response.headers.get('Warning')) };
}

export const MERGE_PATCH = 'application/merge-patch+json';
export const STRATEGIC_PATCH = 'application/strategic-merge-patch+json';
export const APPLY_PATCH = 'application/apply-patch+yaml';
export const JSON_PATCH = 'application/json-patch+json';
export const FIELD_MANAGER = 'windlass-dashboard';

/** Text for people: the API's own words, with every cause on its own line. */
export function explain(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  if (!(error instanceof ApiError)) return error.message;
  const causes = error.status?.details?.causes ?? [];
  if (causes.length < 2) return error.message;
  return [error.message, ...causes.map((cause) => `${cause.field ?? ''}: ${cause.message ?? cause.reason ?? ''}`)].join('\n');
}
