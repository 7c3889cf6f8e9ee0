defmodule Lines do
  @moduledoc "The lines of a file, none of them copied."

  @doc "Maps the file and gives its lines, as views of the mapping."
  @spec open(Path.t()) :: {:ok, tuple()} | {:error, :file.posix()}
  def open(path) do
    with {:ok, handle} <- :iommap.open(path, :read, []),
         {:ok, size} <- :iommap.position(handle),
         {:ok, text} <- :iommap.region_binary(handle, 0, size),
         :ok <- :iommap.close(handle) do
      {:ok, text |> :binary.split("\n", [:global]) |> List.to_tuple()}
    end
  end
end
