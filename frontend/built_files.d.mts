/** The text about the packages that the bundled files come from: absolute paths, of which only those of packages count. */
export function licences(page: string, files: string[]): Promise<string>;

/** Write a copy with `.gz` behind its name beside each file of the folder that is text; the server sends these. */
export function compress(folder: string): Promise<void>;
