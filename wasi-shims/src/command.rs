//! Runs a `wasi:cli` command to its end.

use wasmtime::Store;
use wasmtime_wasi::I32Exit;

use crate::state::{Grants, InstanceState};
use crate::world::World;

/// How a command ended.
#[derive(Debug)]
pub enum CommandEnd {
    /// It returned, or exited by itself, with this code.
    Exited(i32),
    /// The instance was ended by a trap, or could not be made; the text names it with a backtrace.
    Trapped(String),
}

impl World {
    /// Runs a command once. `None` if this is not a command.
    ///
    /// Dropping the future ends the instance.
    pub async fn run_command(&self, grants: &Grants) -> Option<CommandEnd> {
        let store = grants.store();
        let result = match self {
            Self::CommandP2(_) | Self::CommandP3(_) => {
                grants.cpu.meter(Box::pin(self.call(store))).await
            }
            Self::Http(_) => return None,
        };
        Some(end(result))
    }

    async fn call(&self, mut store: Store<InstanceState>) -> wasmtime::Result<Result<(), ()>> {
        match self {
            Self::CommandP2(pre) => {
                let command = pre.instantiate_async(&mut store).await?;
                command.wasi_cli_run().call_run(&mut store).await
            }
            Self::CommandP3(pre) => {
                let command = pre.instantiate_async(&mut store).await?;
                store
                    .run_concurrent(async |accessor| {
                        command.wasi_cli_run().call_run(accessor).await
                    })
                    .await?
            }
            Self::Http(_) => Ok(Ok(())),
        }
    }
}

fn end(result: wasmtime::Result<Result<(), ()>>) -> CommandEnd {
    match result {
        Ok(Ok(())) => CommandEnd::Exited(0),
        Ok(Err(())) => CommandEnd::Exited(1),
        Err(error) => match error.downcast_ref::<I32Exit>() {
            Some(I32Exit(code)) => CommandEnd::Exited(*code),
            None => CommandEnd::Trapped(format!("{error:?}")),
        },
    }
}
