Mix.install([{:iommap, git: "https://example.invalid/iommap.git", branch: "main"}])

[path] = System.argv()
{:ok, handle} = :iommap.open(path, :read_write, [:create, size: 4096])
:ok = :iommap.pwrite(handle, 0, [<<7::64>>, "seen"])
{:ok, text} = :iommap.with_view(handle, 0, 12, fn <<count::64, rest::binary>> -> "#{count} #{rest}" end)
:ok = :iommap.close(handle)
IO.puts(text)
