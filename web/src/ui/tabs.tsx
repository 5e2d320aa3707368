// Tabs whose choice is part of the address; arrow keys move between them.
import { useRef, type KeyboardEvent } from 'react';
import { Link } from './basics';

export interface Tab {
  id: string;
  title: string;
  to: string;
}

export function Tabs({ tabs, current, label }: { tabs: Tab[]; current: string; label: string }) {
  const ref = useRef<HTMLElement>(null);
  const onKeyDown = (event: KeyboardEvent) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    const links = [...(ref.current?.querySelectorAll('a') ?? [])];
    if (!step || !links.length) return;
    event.preventDefault();
    const at = links.indexOf(document.activeElement as HTMLAnchorElement);
    links[(at + step + links.length) % links.length]?.focus();
  };
  return (
    <nav className="tabs" aria-label={label} ref={ref} onKeyDown={onKeyDown}>
      {tabs.map((tab) => <span key={tab.id} className={tab.id === current ? 'tab tab-current' : 'tab'} aria-current={tab.id === current ? 'page' : undefined}><Link to={tab.to}>{tab.title}</Link></span>)}
    </nav>
  );
}
