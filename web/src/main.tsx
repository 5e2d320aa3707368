// Where the dashboard starts: theme, session, then the frame with the page that the address names.
import { StrictMode } from 'react';
import { createRoot } from 'react-dom/client';
import { loadSession, useSession } from './api/session';
import { CurrentPage } from './pages/table';
import { SignIn } from './pages/signin';
import { Shell } from './shell/shell';
import { Note, Spinner } from './ui/basics';
import { applyTheme } from './ui/theme';
import './styles/tokens.css';
import './styles/base.css';
import './styles/shell.css';
import './styles/parts.css';
import './styles/panels.css';

function App() {
  const state = useSession();
  if (state.phase === 'anonymous') return <SignIn ended={state.ended} />;
  if (state.phase === 'signedIn') return <Shell session={state.session}><CurrentPage /></Shell>;
  return <div className="signin">{state.error ? <Note tone="warn">{state.error} Trying again.</Note> : <Spinner label="Asking who you are" />}</div>;
}

applyTheme();
void loadSession();
createRoot(document.getElementById('root')!).render(<StrictMode><App /></StrictMode>);
