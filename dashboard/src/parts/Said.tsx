// Texts that anybody may have written: messages, names, tags, ids.

/**
 * Characters that are not seen as such: controls other than tab and line breaks, and those that turn the direction of
 * all that follows them.
 */
// biome-ignore lint/suspicious/noControlCharactersInRegex: it is these that are looked for
const UNSEEN = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u202a-\u202e\u2066-\u2069\ufeff]/g;

/** The text with `\u202e`, say, in the place of each character that is not seen and changes how others are. */
export const visible = (text: string): string =>
  text.replace(UNSEEN, (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`);

/** A text of somebody else, apart from the words around it whatever is in it. */
export function Said({ children, className = '' }: { children: string; className?: string }) {
  return (
    <bdi dir="auto" className={`said ${className}`}>
      {visible(children)}
    </bdi>
  );
}
