// Catches what a page throws while it draws: never a blank page. Going elsewhere, or trying again, clears it.
import { Component, type ReactNode } from 'react';
import { ErrorNote } from '../ui/basics';

interface Props {
  resetKey: string;
  children: ReactNode;
}

export class Boundary extends Component<Props, { error?: Error }> {
  override state: { error?: Error } = {};

  static getDerivedStateFromError(error: Error) {
    return { error };
  }

  override componentDidUpdate(before: Props) {
    if (this.state.error && before.resetKey !== this.props.resetKey) this.setState({ error: undefined });
  }

  override render() {
    const { error } = this.state;
    if (!error) return this.props.children;
    // A chunk that is gone: the server was updated under an open page.
    const stale = /dynamically imported module|Failed to fetch/.test(error.message);
    const what = stale ? 'A part of the dashboard could not be loaded; the server may have been updated.' : 'This page failed to draw.';
    return <div className="page"><ErrorNote what={what} error={error} retry={() => (stale ? location.reload() : this.setState({ error: undefined }))} /></div>;
  }
}
