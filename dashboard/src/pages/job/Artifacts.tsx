// The files of a job, with a look into those that a page can show.
//
// With authentication the address of a file is signed for five minutes, so it is asked for again before it is used.

import { useEffect, useId, useState } from 'react';
import { useClient } from 'urql';
import { type FileFragment, JobFilesDocument } from '../../api/generated';
import { bytes } from '../../format';
import { Said } from '../../parts/Said';
import { Scrolling } from '../../parts/Scrolling';

type File = FileFragment;

/** Larger pictures are shown only when they are asked for. */
const LARGEST_PICTURE = 5_000_000;
/** A PDF is read as a whole before it is shown. */
const LARGEST_PDF = 30_000_000;
/** Bytes of a text that are looked at. */
const HEAD = 8192;
const MOST_LINES = 20;

const PICTURES = /^image\/(jpeg|png|webp|avif|gif)$/;
const TEXTS = /^(text\/(plain|csv|markdown)|application\/json)$/;

const mediaType = ({ contentType }: File): string =>
  (contentType.split(';', 1)[0] ?? '').trim().toLowerCase();

/** The address of a file, below whatever path the API is served at. */
const addressOf = (url: string): string => new URL(url.replace(/^\/+/, ''), document.baseURI).href;

export function Artifacts({ id, files }: { id: string; files: readonly File[] }) {
  const heading = useId();
  if (files.length === 0) return null;
  return (
    <section className="panel" aria-labelledby={heading}>
      <h2 id={heading}>Files</h2>
      <ul className="files">
        {files.map((file) => (
          <li key={`${file.name} ${file.sha256}`}>
            <OneFile id={id} file={file} />
          </li>
        ))}
      </ul>
    </section>
  );
}

/** Asks for the address of a file anew; null if it is not there any more. */
function useFresh(id: string, name: string): () => Promise<string | null> {
  const client = useClient();
  return async () => {
    const { data } = await client.query(JobFilesDocument, { id }).toPromise();
    const found = data?.job?.artifacts.find((one) => one.name === name);
    return found ? addressOf(found.url) : null;
  };
}

function OneFile({ id, file }: { id: string; file: File }) {
  const fresh = useFresh(id, file.name);
  const [problem, setProblem] = useState('');
  const name = file.name.split('/').at(-1) ?? file.name;

  async function download(): Promise<void> {
    setProblem('');
    const address = await fresh();
    if (address === null) return setProblem('It is not there any more.');
    const link = document.createElement('a');
    link.href = address;
    link.download = name;
    link.click();
  }

  return (
    <figure className="file">
      <figcaption className="row">
        <Said className="file-name">{file.name}</Said>
        <span className="hint">
          {bytes(file.sizeBytes)} · <Said>{file.contentType}</Said>
        </span>
        <a
          href={addressOf(file.url)}
          download={name}
          onClick={(event) => {
            event.preventDefault();
            void download();
          }}
        >
          Download<span className="visually-hidden"> {file.name}</span>
        </a>
      </figcaption>
      {problem && <p role="alert">{problem}</p>}
      <Preview file={file} fresh={fresh} />
    </figure>
  );
}

function Preview({ file, fresh }: { file: File; fresh: () => Promise<string | null> }) {
  const type = mediaType(file);
  if (PICTURES.test(type)) return <Picture file={file} fresh={fresh} />;
  if (TEXTS.test(type)) return <Head file={file} fresh={fresh} isTable={type === 'text/csv'} />;
  if (type === 'application/pdf' && file.sizeBytes <= LARGEST_PDF) return <Pages file={file} fresh={fresh} />;
  return null;
}

function Picture({ file, fresh }: { file: File; fresh: () => Promise<string | null> }) {
  const [address, setAddress] = useState<string | null>(
    file.sizeBytes <= LARGEST_PICTURE ? addressOf(file.url) : null,
  );
  const [problem, setProblem] = useState('');
  const [isSecond, setIsSecond] = useState(false);

  /** An address may have ended before the picture was scrolled to; a second failure is the picture's. */
  async function again(): Promise<void> {
    const other = isSecond ? null : await fresh();
    setIsSecond(true);
    if (other === null || other === address) setProblem('This picture cannot be shown.');
    else setAddress(other);
  }

  if (problem) return <p className="hint">{problem}</p>;
  if (address === null)
    return (
      <button type="button" onClick={() => void fresh().then(setAddress)}>
        Show the picture
      </button>
    );
  return <img src={address} alt={file.name} loading="lazy" onError={() => void again()} />;
}

/** The beginning of a text; of a table its first lines. */
function Head({
  file,
  fresh,
  isTable,
}: {
  file: File;
  fresh: () => Promise<string | null>;
  isTable: boolean;
}) {
  const [text, setText] = useState<string | null>(null);
  const [problem, setProblem] = useState('');
  useEffect(() => {
    const ending = new AbortController();
    async function read(): Promise<void> {
      try {
        const address = await fresh();
        if (address === null || ending.signal.aborted) return;
        const response = await fetch(address, {
          headers: file.sizeBytes > HEAD ? { Range: `bytes=0-${HEAD - 1}` } : {},
          signal: ending.signal,
        });
        if (!response.ok) throw new Error();
        setText(await headOf(response));
      } catch {
        if (!ending.signal.aborted) setProblem('Its beginning cannot be read now.');
      }
    }
    void read();
    return () => ending.abort();
  }, [file.sha256]);

  if (problem) return <p className="hint">{problem}</p>;
  if (text === null) return null;
  const isCut = file.sizeBytes > HEAD;
  if (isTable) return <Table text={text} isCut={isCut} label={`Beginning of ${file.name}`} />;
  return (
    <Scrolling label={`Beginning of ${file.name}`} className="file-head">
      <pre>
        <Said>{isCut ? `${text}…` : text}</Said>
      </pre>
    </Scrolling>
  );
}

/** So much of a response as is shown: a server may answer with more than the range that was asked for. */
async function headOf(response: Response): Promise<string> {
  const reader = response.body?.getReader();
  const decoder = new TextDecoder();
  let text = '';
  for (let read = 0; reader && read < HEAD; ) {
    const { done, value } = await reader.read();
    if (done) break;
    text += decoder.decode(value.subarray(0, HEAD - read), { stream: true });
    read += value.length;
  }
  await reader?.cancel();
  return text;
}

const SEPARATORS = [',', ';', '\t'];

/** What separates the fields of a CSV: the one of the usual signs that its first line has most of, outside of quotes. */
function separatorOf(text: string): string {
  const head = text.replace(/"[^"]*"/g, '').split('\n', 1)[0] ?? '';
  const uses = (sign: string) => head.split(sign).length;
  return SEPARATORS.reduce((best, sign) => (uses(sign) > uses(best) ? sign : best));
}

/** The lines of a CSV, its quotes heeded. The last one is left out if the text may end within it. */
export function linesOf(text: string, isCut: boolean): string[][] {
  const separator = separatorOf(text);
  const lines: string[][] = [];
  let line: string[] = [];
  let field = '';
  let quoted = false;
  for (let index = 0; index < text.length; index++) {
    const character = text[index] as string;
    if (quoted) {
      if (character !== '"') field += character;
      else if (text[index + 1] === '"') {
        field += '"';
        index += 1;
      } else quoted = false;
    } else if (character === '"' && field === '') quoted = true;
    else if (character === separator) {
      line.push(field);
      field = '';
    } else if (character === '\n') {
      lines.push([...line, field.replace(/\r$/, '')]);
      line = [];
      field = '';
    } else field += character;
  }
  if (!isCut && (line.length || field)) lines.push([...line, field]);
  return lines;
}

function Table({ text, isCut, label }: { text: string; isCut: boolean; label: string }) {
  const lines = linesOf(text.replace(/^\ufeff/, ''), isCut);
  const [head = [], ...rows] = lines.slice(0, MOST_LINES + 1);
  return (
    <>
      <Scrolling label={label} className="scrolls">
        <table>
          <thead>
            <tr>
              {head.map((cell, column) => (
                <th key={column} scope="col">
                  <Said>{cell}</Said>
                </th>
              ))}
            </tr>
          </thead>
          <tbody>
            {rows.map((cells, row) => (
              <tr key={row}>
                {cells.map((cell, column) => (
                  <td key={column}>
                    <Said>{cell}</Said>
                  </td>
                ))}
              </tr>
            ))}
          </tbody>
        </table>
      </Scrolling>
      {(isCut || lines.length > MOST_LINES + 1) && (
        <p className="hint">The first {rows.length} lines; the rest is in the file.</p>
      )}
    </>
  );
}

/** A PDF, shown by the browser's own viewer when it is asked for. */
function Pages({ file, fresh }: { file: File; fresh: () => Promise<string | null> }) {
  const [address, setAddress] = useState<string | null>(null);
  const [problem, setProblem] = useState('');
  useEffect(() => () => URL.revokeObjectURL(address ?? ''), [address]);

  async function show(): Promise<void> {
    const at = await fresh();
    try {
      if (at === null) throw new Error();
      const response = await fetch(at);
      if (!response.ok) throw new Error();
      const content = await response.arrayBuffer();
      // Whatever is in it, the browser takes it for a PDF.
      setAddress(URL.createObjectURL(new Blob([content], { type: 'application/pdf' })));
    } catch {
      setProblem('It cannot be read now.');
    }
  }

  if (problem) return <p className="hint">{problem}</p>;
  if (address === null)
    return (
      <button type="button" onClick={() => void show()}>
        Show the pages
      </button>
    );
  return <iframe className="file-pages" src={address} title={file.name} />;
}
