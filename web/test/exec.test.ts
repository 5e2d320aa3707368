import { describe, expect, it } from 'vitest';
import { endOf } from '../src/api/exec';
import { proposals, wordsOf } from '../src/lib/commands';

describe('the end of a command', () => {
  it('tells the exit code, or why the server could not run it', () => {
    expect(endOf({ status: 'Success' })).toEqual({ message: 'The program ended with exit code 0.', failed: false });
    const details = { causes: [{ reason: 'ExitCode', message: '3' }] };
    expect(endOf({ status: 'Failure', reason: 'NonZeroExitCode', message: 'command terminated', details })).toEqual({ message: 'The program ended with exit code 3.', failed: true });
    expect(endOf({ status: 'Failure', message: 'exec: "/bin/sh": not found' })).toEqual({ message: 'exec: "/bin/sh": not found', failed: true });
  });
});

describe('command lines', () => {
  it.each([
    ['probe  one two', ['probe', 'one', 'two']],
    [`say "a \\"b\\" c" 'd  e' f\\ g`, ['say', 'a "b" c', 'd  e', 'f g']],
    [`x="1 2"`, ['x=1 2']],
    [`say ''`, ['say', '']],
    ['', []],
  ])('%s', (line, words) => expect(wordsOf(line)).toEqual(words));

  it('proposes what a container can run', () => {
    const container = { name: 'app', image: 'registry.windlass.local/default/probe:1@sha256:00', volumeMounts: [{ mountPath: '/data' }] };
    expect(proposals(container)).toEqual(['app', 'probe', '/data/', 'tar', 'test']);
    expect(proposals(undefined)).toEqual([]);
  });
});
