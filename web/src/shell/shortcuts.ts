// Keys that work on every page: `/` search, `?` help, `g` and a letter go to a page. None while text is being typed.
import { useEffect, useRef } from 'react';
import { GO_KEYS, entryLink } from '../navigation';
import { navigate } from '../router';

const WAIT = 1500;
const typing = (target: EventTarget | null) => target instanceof HTMLElement && !!target.closest('input,textarea,select,[contenteditable="true"],.xterm,dialog');

export function useShortcuts(actions: { search(): void; help(): void }) {
  const latest = useRef(actions);
  useEffect(() => {
    latest.current = actions;
  });
  useEffect(() => {
    let goUntil = 0;
    const onKeyDown = (event: KeyboardEvent) => {
      if ((event.ctrlKey || event.metaKey) && event.key.toLowerCase() === 'k') {
        event.preventDefault();
        return latest.current.search();
      }
      if (event.ctrlKey || event.metaKey || event.altKey || typing(event.target)) return undefined;
      if (Date.now() < goUntil) {
        goUntil = 0;
        const entry = GO_KEYS[event.key];
        if (entry) navigate(entryLink(entry));
        return undefined;
      }
      if (event.key === 'g') goUntil = Date.now() + WAIT;
      if (event.key !== '/' && event.key !== '?') return undefined;
      event.preventDefault();
      return event.key === '/' ? latest.current.search() : latest.current.help();
    };
    window.addEventListener('keydown', onKeyDown);
    return () => window.removeEventListener('keydown', onKeyDown);
  }, []);
}
