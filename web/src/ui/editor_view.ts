// CodeMirror set up for Kubernetes YAML: highlighting, search, folding, completion and hover help from the schema.
import { autocompletion, completionKeymap, type Completion, type CompletionContext } from '@codemirror/autocomplete';
import { defaultKeymap, history, historyKeymap, indentWithTab } from '@codemirror/commands';
import { yaml } from '@codemirror/lang-yaml';
import { bracketMatching, foldGutter, HighlightStyle, indentOnInput, syntaxHighlighting } from '@codemirror/language';
import { lintGutter, linter } from '@codemirror/lint';
import { highlightSelectionMatches, searchKeymap } from '@codemirror/search';
import { EditorState } from '@codemirror/state';
import { drawSelection, EditorView, highlightActiveLine, hoverTooltip, keymap, lineNumbers } from '@codemirror/view';
import { tags } from '@lezer/highlight';
import { parseYaml, pathAtLine } from '../lib/yaml';
import { cspNonce } from './nonce';

export interface FieldHelp {
  name: string;
  type: string;
  description: string;
}
export interface EditorHelp {
  describe(path: string[]): FieldHelp | undefined;
  complete(path: string[]): FieldHelp[];
}
export interface EditorHandle {
  setValue(value: string): void;
  destroy(): void;
}
interface Options {
  label: string;
  value: string;
  readOnly: boolean;
  onChange(value: string): void;
  help: EditorHelp;
}

const highlighting = HighlightStyle.define([
  { tag: tags.propertyName, color: 'var(--code-key)' },
  { tag: [tags.string, tags.content], color: 'var(--code-string)' },
  { tag: [tags.number, tags.bool, tags.null], color: 'var(--code-number)' },
  { tag: tags.comment, color: 'var(--text-faint)', fontStyle: 'italic' },
]);

const theme = EditorView.theme({
  '&': { color: 'var(--text)', backgroundColor: 'var(--surface)', fontSize: '13px', height: '100%' },
  '.cm-content': { fontFamily: 'var(--mono)', caretColor: 'var(--accent)' },
  '.cm-gutters': { backgroundColor: 'var(--surface-2)', color: 'var(--text-faint)', borderRight: '1px solid var(--line)' },
  '.cm-activeLine, .cm-activeLineGutter': { backgroundColor: 'var(--hover)' },
  '.cm-cursor': { borderLeftColor: 'var(--accent)' },
  '&.cm-focused .cm-selectionBackground, .cm-selectionBackground': { backgroundColor: 'var(--selection) !important' },
  '.cm-tooltip': { backgroundColor: 'var(--surface)', border: '1px solid var(--line-strong)', color: 'var(--text)', maxWidth: '32rem' },
  '.cm-panels': { backgroundColor: 'var(--surface-2)', color: 'var(--text)' },
  '.cm-help': { padding: '6px 10px', whiteSpace: 'pre-wrap' },
});

const linesOf = (state: EditorState) => state.doc.toString().split('\n');

function completions(help: EditorHelp) {
  return (context: CompletionContext) => {
    const line = context.state.doc.lineAt(context.pos);
    const typed = /^(\s*(?:- +)*)([\w.-]*)$/.exec(line.text.slice(0, context.pos - line.from));
    if (!typed || (!context.explicit && !typed[2])) return null;
    // A stand-in key on this line says, by its indentation, which mapping is being written.
    const lines = linesOf(context.state);
    lines[line.number - 1] = `${typed[1]}x:`;
    const parent = pathAtLine(lines, line.number - 1).slice(0, -1);
    const options = help.complete(parent).map((field): Completion => ({ label: field.name, detail: field.type, info: field.description, apply: `${field.name}: ` }));
    return { from: line.from + typed[1]!.length, options };
  };
}

function hover(help: EditorHelp) {
  return hoverTooltip((view, position) => {
    const line = view.state.doc.lineAt(position);
    const key = /^(\s*(?:- +)*)([\w./-]+)\s*:/.exec(line.text);
    if (!key || position > line.from + key[0].length) return null;
    const field = help.describe(pathAtLine(linesOf(view.state), line.number - 1));
    if (!field) return null;
    const create = () => {
      const dom = document.createElement('div');
      dom.className = 'cm-help';
      dom.textContent = `${field.name}: ${field.type}\n${field.description}`;
      return { dom };
    };
    return { pos: line.from + key[1]!.length, above: true, create };
  });
}

const syntaxErrors = linter((view) =>
  parseYaml(view.state.doc.toString()).errors.map((error) => {
    const line = view.state.doc.line(Math.min(error.line, view.state.doc.lines));
    return { from: line.from, to: line.to, severity: 'error' as const, message: error.message };
  }));

export function createEditor(parent: HTMLElement, options: Options): EditorHandle {
  const extensions = [
    EditorView.cspNonce.of(cspNonce()),
    lineNumbers(), foldGutter(), history(), drawSelection(), indentOnInput(), bracketMatching(), highlightActiveLine(), highlightSelectionMatches(),
    yaml(), syntaxHighlighting(highlighting), theme, hover(options.help),
    // Tab leaves the editor after Escape, so that the keyboard is not trapped.
    keymap.of([...completionKeymap, ...searchKeymap, ...historyKeymap, ...defaultKeymap, ...(options.readOnly ? [] : [indentWithTab])]),
    EditorView.contentAttributes.of({ 'aria-label': options.label }),
    EditorView.updateListener.of((update) => update.docChanged && options.onChange(update.state.doc.toString())),
    EditorState.tabSize.of(2),
  ];
  if (options.readOnly) extensions.push(EditorState.readOnly.of(true), EditorView.editable.of(false), EditorView.contentAttributes.of({ tabindex: '0' }));
  else extensions.push(autocompletion({ override: [completions(options.help)] }), lintGutter(), syntaxErrors);
  const view = new EditorView({ parent, state: EditorState.create({ doc: options.value, extensions }) });
  return {
    setValue(value) {
      const current = view.state.doc.toString();
      if (value === current) return;
      view.dispatch({ changes: { from: 0, to: current.length, insert: value } });
    },
    destroy: () => view.destroy(),
  };
}
