import { useCallback, useEffect, useState } from 'react';
import { Transcription } from './Transcription';

export interface Video {
  id: number;
  name: string;
  job_id: string;
}

export function App() {
  const [videos, setVideos] = useState<Video[]>([]);
  const [problem, setProblem] = useState<string>();

  const load = useCallback(async () => setVideos(await asked<Video[]>('videos')), []);
  useEffect(() => {
    load().catch((error: Error) => setProblem(error.message));
  }, [load]);

  async function upload(form: FormData): Promise<void> {
    setProblem(undefined);
    try {
      await asked<Video>('videos', { method: 'POST', body: form });
      await load();
    } catch (error) {
      setProblem((error as Error).message);
    }
  }

  return (
    <>
      <h1>Transcribe</h1>
      <form action={upload}>
        <label>
          A video in English <input type="file" name="file" accept="video/*" required />
        </label>{' '}
        <button>Transcribe it</button>
      </form>
      {problem && <p role="alert">{problem}</p>}
      {videos.map((video) => (
        <Transcription key={video.id} video={video} />
      ))}
    </>
  );
}

async function asked<Answer>(path: string, init?: RequestInit): Promise<Answer> {
  const response = await fetch(path, init);
  const answer = await response.json();
  if (!response.ok) throw new Error(typeof answer.detail === 'string' ? answer.detail : response.statusText);
  return answer;
}
