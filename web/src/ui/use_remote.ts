// A value asked for once per key: loading, failed or there. Late answers of an older key are dropped.
import { useCallback, useEffect, useState } from 'react';

export interface Remote<T> {
  value?: T;
  error?: Error;
  loading: boolean;
  reload(): void;
}

export function useRemote<T>(key: string | undefined, ask: (signal: AbortSignal) => Promise<T>): Remote<T> {
  const [state, setState] = useState<{ key?: string; value?: T; error?: Error }>({});
  const [turn, setTurn] = useState(0);
  useEffect(() => {
    if (key === undefined) return undefined;
    const abort = new AbortController();
    ask(abort.signal).then(
      (value) => !abort.signal.aborted && setState({ key, value }),
      (error: Error) => !abort.signal.aborted && setState({ key, error }),
    );
    return () => abort.abort();
    // `ask` is a closure over the key: asking again for each new closure would never end.
    // eslint-disable-next-line react-hooks/exhaustive-deps
  }, [key, turn]);
  const reload = useCallback(() => setTurn((old) => old + 1), []);
  const current = state.key === key;
  return { value: current ? state.value : undefined, error: current ? state.error : undefined, loading: key !== undefined && !current, reload };
}
