# Reads a model in the safetensors format (https://huggingface.co/docs/safetensors) one tensor at a time.
#
# Shows: windows. Each tensor is mapped by itself (the options offset and length), is handed to a consumer as a view, and is
# unmapped before the next one. So a file of many gigabytes takes address space, and memory of this VM, for one tensor at a
# time, and no byte of a tensor is copied. with_view/4 answers {:error, :sigbus} if the file lost a byte meanwhile.
#
# Does not: give the view away (a consumer that keeps a part of it keeps that tensor mapped, and learns of no loss:
# :binary.copy/1), convert numbers, or notice a file that is rewritten in place. The decoder at the end knows no more of JSON
# than the format's header has (objects, lists, strings, whole numbers), and checks nothing: take your project's instead.
#
#     export ERL_LIBS=_build/default/lib
#     elixir examples/safetensors.exs FILE      # prints name, type, shape, size and CRC-32 of each tensor

defmodule Safetensors do
  @bytes for {size, types} <- %{
               1 => ~w(BOOL U8 I8 F8_E5M2 F8_E4M3),
               2 => ~w(U16 I16 F16 BF16),
               4 => ~w(U32 I32 F32),
               8 => ~w(U64 I64 F64)
             },
             type <- types,
             into: %{},
             do: {type, size}
  # The format's own limit.
  @longest_header 100_000_000

  @doc "The tensors of a file, in the order of their bytes: maps of name, type, shape, and place in the file."
  def tensors(path) do
    with {:ok, handle} <- :iommap.open(path, :read, []) do
      try do
        with {:ok, <<length::64-little>>} when length <= @longest_header <-
               :iommap.pread(handle, 0, 8),
             {:ok, header} <- :iommap.pread(handle, 8, length) do
          header = header |> Safetensors.Json.decode() |> Map.delete("__metadata__")

          {:ok,
           header |> Enum.map(&tensor(&1, 8 + length)) |> Enum.sort_by(&{&1.offset, &1.length})}
        else
          {:ok, _} -> {:error, :not_safetensors}
          error -> error
        end
      after
        :iommap.close(handle)
      end
    end
  end

  defp tensor({name, %{"dtype" => type, "shape" => shape, "data_offsets" => offsets}}, start) do
    [first, last] = offsets
    true = Enum.product(shape) * Map.fetch!(@bytes, type) == last - first
    %{name: name, type: type, shape: shape, offset: start + first, length: last - first}
  end

  @doc "Calls the consumer with a tensor's view. {:ok, what it gave}, or {:error, reason}."
  # An empty window cannot be mapped.
  def with_tensor(_path, %{length: 0}, consumer), do: {:ok, consumer.("")}

  def with_tensor(path, %{offset: offset, length: length}, consumer) do
    with {:ok, window} <- :iommap.open(path, :read, offset: offset, length: length) do
      try do
        # Reading from the disk begins now, for all of it. A file that is too short has no such view: :out_of_bounds.
        :ok = :iommap.advise(window, 0, 0, :willneed)
        :iommap.with_view(window, 0, length, consumer)
      after
        :iommap.close(window)
      end
    end
  end
end

defmodule Safetensors.Json do
  @moduledoc false

  def decode(text) do
    tokens = Regex.scan(~r/"(?:[^"\\]++|\\.)*+"|[{}\[\]:,]|\d+/s, text)
    {value, []} = tokens |> List.flatten() |> value()
    value
  end

  defp value(["{" | rest]), do: with({members, rest} <- items(rest), do: {Map.new(members), rest})
  defp value(["[" | rest]), do: items(rest)
  defp value(["\"" <> rest_of_string | rest]), do: {string(rest_of_string), rest}
  defp value([digits | rest]), do: {String.to_integer(digits), rest}

  defp items([close | rest]) when close in ["}", "]"], do: {[], rest}
  defp items(["," | rest]), do: items(rest)

  defp items(tokens) do
    {item, rest} = item(value(tokens))
    {items, rest} = items(rest)
    {[item | items], rest}
  end

  defp item({name, [":" | rest]}),
    do: with({value, rest} <- value(rest), do: {{name, value}, rest})

  defp item(value), do: value

  # All of JSON's escapes are Elixir's too, but for the halves of \uD800 and up, which raise.
  defp string(text), do: text |> binary_part(0, byte_size(text) - 1) |> Macro.unescape_string()
end

with [path] <- System.argv(), {:ok, tensors} <- Safetensors.tensors(path) do
  for tensor <- tensors do
    # The consumer: reads each byte once.
    {:ok, crc} = Safetensors.with_tensor(path, tensor, &:erlang.crc32/1)
    IO.puts("#{tensor.name} #{tensor.type} #{inspect(tensor.shape)} #{tensor.length} #{crc}")
  end
else
  {:error, reason} -> IO.puts(:stderr, :iommap.format_error(reason)) && System.halt(1)
  _ -> IO.puts(:stderr, "usage: safetensors.exs FILE") && System.halt(2)
end
