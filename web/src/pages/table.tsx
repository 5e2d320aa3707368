// The pages: one row each. The first that matches the address is shown; all but the frame load when first opened.
import { lazy, type ComponentType, type LazyExoticComponent } from 'react';
import { match, useLocation } from '../router';
import { Empty, Link } from '../ui/basics';

export interface PageProps {
  params: Record<string, string>;
}

type Page = [pattern: string, page: LazyExoticComponent<ComponentType<PageProps>>];

const PAGES: Page[] = [
  ['/', lazy(() => import('./overview'))],
  ['/list/:group/:resource', lazy(() => import('./list'))],
  ['/object/:group/:resource/:namespace/:name/:tab?', lazy(() => import('./object'))],
  ['/workloads', lazy(() => import('./workloads'))],
  ['/events', lazy(() => import('./events'))],
  ['/kinds', lazy(() => import('./kinds'))],
  ['/access', lazy(() => import('./access'))],
  ['/map', lazy(() => import('./map'))],
  ['/create/:form?', lazy(() => import('./create'))],
];

export function CurrentPage() {
  const { path } = useLocation();
  if (path === '/signin') return <div className="page"><Empty title="You are signed in."><Link to="/">To the overview</Link></Empty></div>;
  for (const [pattern, Component] of PAGES) {
    const params = match(pattern, path);
    if (params) return <Component params={params} />;
  }
  return <div className="page"><Empty title="There is no such page."><Link to="/">To the overview</Link></Empty></div>;
}
