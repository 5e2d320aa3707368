// The frame around every page: navigation, namespace, search, theme, user, connection state, keys.
import { Suspense, useEffect, useState, type ReactNode } from 'react';
import { loadDiscovery, findResource, useCatalogue } from '../api/discovery';
import { useFreshDiscovery } from '../api/fresh_discovery';
import { useListable } from '../api/rights';
import { signOut, type Session } from '../api/session';
import { useList } from '../api/use_list';
import { chooseNamespace, useNamespace } from '../namespace';
import { NAVIGATION, entryLink, type NavEntry } from '../navigation';
import { useLocation } from '../router';
import { Button, Link, Spinner } from '../ui/basics';
import { Toasts } from '../ui/toasts';
import { setTheme, useTheme, type Theme } from '../ui/theme';
import { Boundary } from './boundary';
import { ConnectionBanner } from './connection';
import { Help } from './help';
import { useShortcuts } from './shortcuts';
import { Palette } from '../search/palette';

function Navigation({ open, onFollow, children }: { open: boolean; onFollow(): void; children: ReactNode }) {
  const { path } = useLocation();
  const namespace = useNamespace();
  const listable = useListable(namespace);
  const { all, phase } = useCatalogue();
  const served = (entry: NavEntry) => {
    if (!entry.resource || phase !== 'ready') return true;
    const [group, resource] = entry.resource.split('/');
    return !!findResource(all, group!, resource!);
  };
  return (
    <nav className={open ? 'side side-open nav' : 'side nav'} aria-label="Pages">
      <Link to="/" className="brand" onClick={onFollow}><img src="/icon.svg" alt="" />Windlass</Link>
      {NAVIGATION.map((group) => (
        <div className="nav-group" key={group.title}>
          <div className="nav-title">{group.title}</div>
          <ul>
            {group.entries.filter(served).map((entry) => {
              const to = entryLink(entry);
              const [apiGroup, resource] = (entry.resource ?? '').split('/');
              const off = !!entry.resource && !listable(apiGroup!, resource!);
              const current = to === '/' ? path === '/' : path === to;
              const reason = off ? `You may not list ${resource}${namespace ? ` in namespace ${namespace}` : ' in all namespaces'}.` : undefined;
              return <li key={to} className={`${current ? 'nav-current' : ''} ${off ? 'nav-off' : ''}`} aria-current={current ? 'page' : undefined}><Link to={to} title={reason} onClick={onFollow}>{entry.title}</Link></li>;
            })}
          </ul>
        </div>
      ))}
      <div className="side-foot stack">{children}</div>
    </nav>
  );
}

function NamespacePicker() {
  const namespace = useNamespace();
  const list = useList('/api/v1/namespaces');
  const names = list.items.map((item) => item.metadata.name).sort();
  const known = namespace && !names.includes(namespace) ? [namespace, ...names] : names;
  if (list.phase === 'failed') {
    return <label><span className="sr-only">Namespace</span><input list="no-namespaces" placeholder="namespace" defaultValue={namespace} aria-label="Namespace (the list of namespaces is not open to you)" onKeyDown={(event) => event.key === 'Enter' && chooseNamespace(event.currentTarget.value.trim())} onBlur={(event) => chooseNamespace(event.target.value.trim())} /></label>;
  }
  return (
    <select aria-label="Namespace" value={namespace} onChange={(event) => chooseNamespace(event.target.value)}>
      <option value="">All namespaces</option>
      {known.map((name) => <option key={name} value={name}>{name}</option>)}
    </select>
  );
}

const THEMES: [Theme, string][] = [['system', 'Theme: system'], ['light', 'Theme: light'], ['dark', 'Theme: dark']];

function ThemePicker() {
  const theme = useTheme();
  return <select aria-label="Theme" value={theme} onChange={(event) => setTheme(event.target.value as Theme)}>{THEMES.map(([value, title]) => <option key={value} value={value}>{title}</option>)}</select>;
}

type Overlay = 'search' | 'help' | undefined;

export function Shell({ session, children }: { session: Session; children: ReactNode }) {
  const [overlay, setOverlay] = useState<Overlay>();
  const [menu, setMenu] = useState(false);
  const { path } = useLocation();
  useEffect(() => void loadDiscovery(), []);
  useFreshDiscovery();
  useShortcuts({ search: () => setOverlay('search'), help: () => setOverlay('help') });
  return (
    <div className="shell">
      <a className="skip" href="#page">Skip to the page</a>
      <Navigation open={menu} onFollow={() => setMenu(false)}>
        <ThemePicker /><span className="faint wrap">{session.user.username}</span><Button onClick={() => void signOut()}>Sign out</Button>
      </Navigation>
      <div className="main">
        <header className="top">
          <Button tone="quiet" className="menu-open" aria-expanded={menu} onClick={() => setMenu(!menu)}>Menu</Button>
          <NamespacePicker />
          <Button className="search-open" aria-label="Search" onClick={() => setOverlay('search')}><span>Search <span className="search-words">names, kinds, labels, actions</span></span><kbd>/</kbd></Button>
          <span className="grow" />
          <div className="top-only"><ThemePicker /></div>
          <span className="user-name faint" title={`${session.user.username}. Groups: ${session.user.groups.join(', ') || 'none'}. ${session.expires ? `The session ends ${new Date(session.expires).toLocaleString()}.` : 'Known by client certificate.'}`}>{session.user.username}</span>
          <Button tone="quiet" className="top-only" onClick={() => void signOut()}>Sign out</Button>
        </header>
        <ConnectionBanner />
        <main id="page" tabIndex={-1}><Boundary resetKey={path}><Suspense fallback={<Spinner />}>{children}</Suspense></Boundary></main>
      </div>
      {overlay === 'search' && <Palette onClose={() => setOverlay(undefined)} />}
      {overlay === 'help' && <Help onClose={() => setOverlay(undefined)} version={session.version} />}
      <Toasts />
    </div>
  );
}
