// Signing in: with a one-time link that `windlass up` prints, or with a token of a user or ServiceAccount.
import { useState, type FormEvent } from 'react';
import { signIn } from '../api/session';
import { navigate, useLocation } from '../router';
import { Button, ErrorNote, Note } from '../ui/basics';

export function SignIn({ ended }: { ended: boolean }) {
  const { path, query } = useLocation();
  const [token, setToken] = useState('');
  const [error, setError] = useState<Error>();
  const [busy, setBusy] = useState(false);
  const submit = async (event: FormEvent) => {
    event.preventDefault();
    setBusy(true);
    setError(undefined);
    try {
      await signIn(token.trim());
      if (path === '/signin') navigate('/', { replace: true });
    } catch (problem) {
      setError(problem as Error);
    } finally {
      setBusy(false);
    }
  };
  return (
    <div className="signin">
      <form className="signin-box" onSubmit={(event) => void submit(event)}>
        <h1>Sign in to Windlass</h1>
        {ended && <Note tone="warn">Your session ended. Sign in again to go on where you were.</Note>}
        {query.get('error') === 'link' && <Note tone="warn">This login link was used before or is not known. Each link works once; the server prints a new one when it starts.</Note>}
        {error && <ErrorNote what="Not signed in." error={error} />}
        <label className="field"><span>Bearer token</span>
          <textarea value={token} onChange={(event) => setToken(event.target.value)} autoComplete="off" spellCheck={false} required aria-describedby="token-help" />
          <small id="token-help">For example from <code>kubectl create token NAME</code>. It is sent to the server once and not kept in the browser.</small>
        </label>
        <Button type="submit" tone="primary" reason={busy ? 'Signing in' : token.trim() ? undefined : 'Enter a token.'} onClick={() => undefined}>Sign in</Button>
      </form>
    </div>
  );
}
