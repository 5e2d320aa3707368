// Who is signed in. One store: `unknown` until the server answers, then `anonymous` or `signedIn`.
// Any request that is answered 401, and the stream's close code 4401, bring it back to `anonymous`.
import { useSyncExternalStore } from 'react';
import { ApiError, onSessionEnd, send } from './client';

export interface Session {
  user: { username: string; groups: string[] };
  /** None where a client certificate is shown with each connection. */
  expires: string | null;
  version: string;
}

export type SessionState =
  | { phase: 'unknown'; error?: string }
  | { phase: 'anonymous'; ended: boolean }
  | { phase: 'signedIn'; session: Session };

let state: SessionState = { phase: 'unknown' };
let lastUser: string | undefined;
const listeners = new Set<() => void>();

function set(next: SessionState) {
  state = next;
  for (const listener of listeners) listener();
}

onSessionEnd(() => {
  if (state.phase === 'signedIn') set({ phase: 'anonymous', ended: true });
});

/** Asks the server who we are; tries again for as long as the server is not reached. */
export async function loadSession(): Promise<void> {
  for (let delay = 500; ; delay = Math.min(delay * 2, 8000)) {
    try {
      const response = await send('/session');
      const session = (await response.json()) as Session;
      // Somebody else goes on where the last one left: nothing that they read may stay in memory.
      if (lastUser !== undefined && lastUser !== session.user.username) return location.reload();
      lastUser = session.user.username;
      set({ phase: 'signedIn', session });
      return;
    } catch (error) {
      if (error instanceof ApiError && error.code === 401) {
        set({ phase: 'anonymous', ended: false });
        return;
      }
      set({ phase: 'unknown', error: (error as Error).message });
    }
    await new Promise((resolve) => setTimeout(resolve, delay));
  }
}

export async function signIn(token: string): Promise<void> {
  await send('/session', { method: 'POST', headers: { 'Content-Type': 'application/json' }, body: JSON.stringify({ token }) });
  await loadSession();
}

export async function signOut(): Promise<void> {
  await send('/session', { method: 'DELETE' }).catch(() => undefined);
  // A full load: nothing that this user saw stays in memory.
  location.assign('/signin');
}

export function useSession(): SessionState {
  return useSyncExternalStore(
    (listener) => {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
    () => state,
  );
}
