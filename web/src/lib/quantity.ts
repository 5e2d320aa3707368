// Kubernetes quantities: `100m`, `1.5`, `64Mi`, `2e3`, `52653n`. Parsed to numbers of the base unit, printed for people.

const SUFFIXES: Record<string, number> = {
  '': 1, n: 1e-9, u: 1e-6, m: 1e-3, k: 1e3, M: 1e6, G: 1e9, T: 1e12, P: 1e15, E: 1e18,
  Ki: 2 ** 10, Mi: 2 ** 20, Gi: 2 ** 30, Ti: 2 ** 40, Pi: 2 ** 50, Ei: 2 ** 60,
};

/** The number a quantity stands for; NaN for what is no quantity. */
export function parseQuantity(text: string | number | undefined | null): number {
  if (typeof text === 'number') return text;
  const match = /^([+-]?\d*\.?\d+|[+-]?\d+\.)(?:([eE][+-]?\d+)|(n|u|m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei)?)$/.exec((text ?? '').trim());
  if (!match) return NaN;
  const [, number, exponent, suffix] = match;
  return exponent ? Number(`${number}${exponent}`) : Number(number) * SUFFIXES[suffix ?? '']!;
}

const short = (value: number) => String(Number(value.toFixed(value >= 100 ? 0 : value >= 10 ? 1 : 2)));

/** Bytes with binary units: `1.5 MiB`. */
export function formatBytes(bytes: number): string {
  if (!Number.isFinite(bytes)) return '–';
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB'];
  let value = bytes;
  let unit = 0;
  while (Math.abs(value) >= 1024 && unit < units.length - 1) {
    value /= 1024;
    unit += 1;
  }
  return `${unit === 0 ? Math.round(value) : short(value)} ${units[unit]}`;
}

/** Cores: `250m` below one core, `1.5` above. */
export function formatCpu(cores: number): string {
  if (!Number.isFinite(cores)) return '–';
  if (cores === 0) return '0';
  if (Math.abs(cores) < 0.001) return `${short(cores * 1e6)}µ`;
  return Math.abs(cores) < 1 ? `${short(cores * 1000)}m` : short(cores);
}

export const formatResource = (name: string, value: number): string =>
  name === 'cpu' ? formatCpu(value) : /memory|storage|hugepages/.test(name) ? formatBytes(value) : short(value);

export const formatCount = (value: number): string => (value >= 10_000 ? `${short(value / 1000)}k` : String(value));
