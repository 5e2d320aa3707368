// The nonce of this response's Content-Security-Policy: libraries that make style elements must put it on them.
export const cspNonce = (): string => document.querySelector<HTMLMetaElement>('meta[name="csp-nonce"]')?.content ?? '';
