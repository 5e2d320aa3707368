//! Doing the same thing many times without failing many times.

use std::future::Future;

/// Runs `step` for each number below `count`, in batches of 1, 2, 4, ... at once; the first batch with a failure is the
/// last. Answers how many succeeded, and a failure if there was one.
pub async fn repeat<F, Fut, E>(count: usize, step: F) -> (usize, Option<E>)
where
    F: Fn(usize) -> Fut,
    Fut: Future<Output = Result<(), E>>,
{
    let (mut done, mut batch) = (0, 1);
    while done < count {
        let size = batch.min(count - done);
        let results = futures::future::join_all((done..done + size).map(&step)).await;
        let successes = results.iter().filter(|result| result.is_ok()).count();
        done += successes;
        if let Some(error) = results.into_iter().find_map(Result::err) {
            return (done, Some(error));
        }
        batch = batch.saturating_mul(2);
    }
    (done, None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    #[tokio::test]
    async fn a_failing_batch_is_the_last() {
        for (count, works, expected) in [
            (10, 10, (10, false, 10)),
            (10, 2, (2, true, 3)),
            (9, 0, (0, true, 1)),
            (0, 0, (0, false, 0)),
        ] {
            let calls = Cell::new(0);
            let (done, error) = repeat(count, |_| {
                calls.set(calls.get() + 1);
                let result = if calls.get() <= works {
                    Ok(())
                } else {
                    Err("no")
                };
                async move { result }
            })
            .await;
            assert_eq!((done, error.is_some(), calls.get()), expected);
        }
    }
}
