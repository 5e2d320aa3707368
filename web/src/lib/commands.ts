// Command lines that people type, and what may be run in a container of a pod, which has no shell.

interface Container {
  name: string;
  image?: string;
  volumeMounts?: { mountPath: string }[];
}

/** The words of a command line: quotes keep spaces, a backslash the next character. Nothing else means anything. */
export function wordsOf(line: string): string[] {
  const words: string[] = [];
  for (const match of line.matchAll(/(?:[^\s"'\\]|\\.|"(?:[^"\\]|\\.)*"|'[^']*'|["'\\])+/g)) {
    words.push(match[0].replace(/'([^']*)'|"((?:[^"\\]|\\.)*)"|\\(.)/g, (_all, plain?: string, quoted?: string, escaped?: string) => plain ?? quoted?.replace(/\\(.)/g, '$1') ?? escaped ?? ''));
  }
  return words;
}

/** Programs to propose: the container's own, by its name and its image's; the node's tools; where components in volumes are. */
export function proposals(container: Container | undefined): string[] {
  if (!container) return [];
  const image = /([^/:@]+)(?::[^/@]*)?(?:@.*)?$/.exec(container.image ?? '')?.[1];
  const volumes = (container.volumeMounts ?? []).map((mount) => `${mount.mountPath.replace(/\/$/, '')}/`);
  return [...new Set([container.name, ...(image ? [image] : []), ...volumes, 'tar', 'test'])];
}
