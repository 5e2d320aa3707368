// Pushes a .wasm file to the cluster's registry as the OCI artifact that `windlass push` makes: a configuration that
// names architecture and layer, one layer with the bytes, and a manifest. Pushing the same bytes gives the same digest.
import { ApiError, send } from './client';

export const REGISTRY = 'registry.windlass.local';
const MANIFEST = 'application/vnd.oci.image.manifest.v1+json';
const CONFIG = 'application/vnd.wasm.config.v0+json';
const WASM = 'application/wasm';

export type WasmKind = 'component' | 'module';

/** What the first eight bytes say: magic number, version, layer. */
export function wasmKind(bytes: Uint8Array): WasmKind | undefined {
  const [zero, a, s, m, version, , layer, last] = bytes;
  if (bytes.length < 8 || zero !== 0 || a !== 0x61 || s !== 0x73 || m !== 0x6d || last !== 0) return undefined;
  if (layer === 1) return 'component';
  return layer === 0 && version === 1 ? 'module' : undefined;
}

export async function sha256(bytes: Uint8Array<ArrayBuffer>): Promise<string> {
  const hash = new Uint8Array(await crypto.subtle.digest('SHA-256', bytes));
  return `sha256:${[...hash].map((byte) => byte.toString(16).padStart(2, '0')).join('')}`;
}

const encode = (value: unknown) => new TextEncoder().encode(JSON.stringify(value));

export interface Artifact {
  digest: string;
  manifest: Uint8Array<ArrayBuffer>;
  blobs: { digest: string; bytes: Uint8Array<ArrayBuffer> }[];
}

export async function wrap(wasm: Uint8Array<ArrayBuffer>): Promise<Artifact> {
  const kind = wasmKind(wasm);
  if (!kind) throw new Error('This file is not a WebAssembly component or module.');
  const layer = await sha256(wasm);
  const config = encode({ architecture: 'wasm', os: kind === 'component' ? 'wasip2' : 'wasip1', layerDigests: [layer] });
  const configDigest = await sha256(config);
  const manifest = encode({
    schemaVersion: 2,
    mediaType: MANIFEST,
    config: { mediaType: CONFIG, digest: configDigest, size: config.length },
    layers: [{ mediaType: WASM, digest: layer, size: wasm.length }],
  });
  return { digest: await sha256(manifest), manifest, blobs: [{ digest: configDigest, bytes: config }, { digest: layer, bytes: wasm }] };
}

async function has(path: string): Promise<boolean> {
  try {
    await send(path, { method: 'HEAD' });
    return true;
  } catch (error) {
    if (error instanceof ApiError && error.code === 404) return false;
    throw error;
  }
}

async function pushBlob(repository: string, digest: string, bytes: Uint8Array<ArrayBuffer>): Promise<void> {
  const base = `/registry/v2/${repository}/blobs`;
  if (await has(`${base}/${digest}`)) return;
  const started = await send(`${base}/uploads/`, { method: 'POST' });
  const upload = new URL(started.headers.get('Location') ?? '', location.origin);
  // Only the path: wherever the registry thinks it is, it is reached through this server.
  const path = upload.pathname.startsWith('/registry/') ? upload.pathname : `/registry${upload.pathname}`;
  upload.searchParams.set('digest', digest);
  await send(`${path}?${upload.searchParams}`, { method: 'PUT', headers: { 'Content-Type': 'application/octet-stream' }, body: bytes });
}

/** Pushes and answers the reference to run; the manifest goes last, so that all it names is there. */
export async function pushWasm(namespace: string, name: string, wasm: Uint8Array<ArrayBuffer>, say: (stage: string) => void): Promise<string> {
  say('Hashing');
  const artifact = await wrap(wasm);
  const repository = `${namespace}/${name}`;
  for (const blob of artifact.blobs) {
    say(`Sending ${blob.bytes.length} bytes`);
    await pushBlob(repository, blob.digest, blob.bytes);
  }
  say('Sending the manifest');
  await send(`/registry/v2/${repository}/manifests/${artifact.digest}`, { method: 'PUT', headers: { 'Content-Type': MANIFEST }, body: artifact.manifest });
  return `${REGISTRY}/${repository}@${artifact.digest}`;
}
