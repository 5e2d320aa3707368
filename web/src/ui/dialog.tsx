// Modal dialogs on the browser's own <dialog>: it traps focus, Escape closes it, and focus returns to where it was.
import { useEffect, useId, useRef, type ReactNode } from 'react';
import { Button } from './basics';

interface Props {
  title: string;
  children: ReactNode;
  onClose(): void;
  footer?: ReactNode;
  size?: 'normal' | 'wide';
}

export function Dialog({ title, children, onClose, footer, size = 'normal' }: Props) {
  const ref = useRef<HTMLDialogElement>(null);
  const id = useId();
  useEffect(() => {
    const dialog = ref.current;
    const before = document.activeElement as HTMLElement | null;
    if (dialog && !dialog.open) dialog.showModal();
    return () => before?.focus?.();
  }, []);
  return (
    <dialog ref={ref} className={`dialog dialog-${size}`} aria-labelledby={id} onCancel={(event) => { event.preventDefault(); onClose(); }} onMouseDown={(event) => event.target === ref.current && onClose()}>
      <div className="dialog-box">
        <header className="dialog-head"><h2 id={id}>{title}</h2><Button tone="quiet" aria-label="Close" onClick={onClose}>×</Button></header>
        <div className="dialog-body" tabIndex={0}>{children}</div>
        {footer && <footer className="dialog-foot">{footer}</footer>}
      </div>
    </dialog>
  );
}
